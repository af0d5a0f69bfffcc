"""One store of each kind, opened for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage import Storage, open_storage

STORES = ["sqlite"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an SQLite store that does not exist yet."""
    return Settings(data_dir=tmp_path / "data", database_url=None)


@pytest.fixture(params=STORES)
async def storage(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Storage]:
    """An empty store. All tests that use it are the contract, and run on every kind."""
    async with open_storage(settings) as storage:
        yield storage
