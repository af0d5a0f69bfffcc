"""What tests of several rooms use."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator

import pytest
from hypothesis import is_hypothesis_test

from tests.forked import close_origin
from tests.postgres import DatabaseServer, close_shared_server, open_database_server

# Run by make test-frameworks, in environments that have the frameworks and not the server, and by
# make docs-site.
collect_ignore = ["frameworks", "docs_site"]

# Each client of httpx reads all authorities from a file, in 30 ms of processor time, but those of a
# directory only when they are asked for. Clients of tests never ask: their servers speak plain HTTP.
# What installs does, and is given back what the machine is configured for.
AUTHORITIES = {
    name: os.environ.pop(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ
}
os.environ["SSL_CERT_DIR"] = ssl.get_default_verify_paths().openssl_capath

# A shell that starts the tests in the background lets them ignore Ctrl-C, and with them the programs
# that they start and stop so.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[DatabaseServer]:
    """One PostgreSQL server for all tests of this process."""
    with open_database_server() as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run random examples untraced: they are many, and run the lines that chosen ones have covered."""
    for item in items:
        if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
            item.add_marker(pytest.mark.no_cover)


def pytest_sessionfinish() -> None:
    close_shared_server()
    close_origin()
