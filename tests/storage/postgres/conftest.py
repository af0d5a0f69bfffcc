"""PostgreSQL stores, and a way past them to their database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from tests.postgres import DatabaseServer
from tests.until import PATIENCE_S

# Not pg_stat_activity, which stays as a transaction has first seen it.
_IS_ANYONE_WAITING = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)"


async def until_another_waits(connection: asyncpg.Connection[Any]) -> None:
    """Until somebody waits for a lock, such as one that `connection` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not await connection.fetchval(_IS_ANYONE_WAITING):  # noqa: ASYNC110 - not our process
            await asyncio.sleep(0.002)


@pytest.fixture
def settings(postgres: DatabaseServer, tmp_path: Path) -> Iterator[Settings]:
    """Of an empty PostgreSQL store."""
    with postgres.new_database() as found:
        yield Settings(data_dir=tmp_path / "data", **found)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with open_storage(settings) as store:
        yield store


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Another client of the same database, which does what no replica would."""
    connection = await asyncpg.connect(settings.postgres_listen_url or settings.storage_url)
    yield connection
    await connection.close()
