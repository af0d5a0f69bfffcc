"""What tests of several rooms use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.forked import close_origin
from tests.postgres import DatabaseServer, close_shared_server, open_database_server

# Run by make test-frameworks, in environments that have the frameworks and not the server.
collect_ignore = ["frameworks"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[DatabaseServer]:
    """One PostgreSQL server for all tests of this process."""
    with open_database_server() as server:
        yield server


def pytest_sessionfinish() -> None:
    close_shared_server()
    close_origin()
