"""A server that all these tests share, and processes that see the client and the examples."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.conftest import API_KEY, RestartableServer, anyio_backend, relay

__all__ = ["anyio_backend", "relay"]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Each test makes sessions of its own."""
    server = RestartableServer(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server.url
    finally:
        server.stop(signal.SIGKILL)


def client_environment(url: str) -> dict[str, str]:
    """What a process needs that uses the client from the checkout, as after client-config env."""
    paths = os.pathsep.join([str(ROOT / "client/src"), str(ROOT)])
    return os.environ | {"SCS_URL": url, "SCS_API_KEY": API_KEY, "PYTHONPATH": paths}
