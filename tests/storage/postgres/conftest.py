"""PostgreSQL stores, and a way past them to their database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage import Storage, open_storage
from tests.postgres import DatabaseServer


@pytest.fixture
def settings(postgres: DatabaseServer, tmp_path: Path) -> Iterator[Settings]:
    """Of an empty PostgreSQL store."""
    with postgres.new_database() as found:
        yield Settings(data_dir=tmp_path / "data", **found)


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    async with open_storage(settings) as storage:
        yield storage


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Another client of the same database, which does what no replica would."""
    connection = await asyncpg.connect(settings.postgres_listen_url or settings.storage_url)
    yield connection
    await connection.close()
