"""Stores and buses as processes have them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared_context_server.events.bus import Bus
from shared_context_server.events.link import open_link
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage

PATIENCE_S = 30.0  # for anything that has to happen; far above what it takes


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=None)


@asynccontextmanager
async def open_linked(settings: Settings) -> AsyncIterator[tuple[Store, Bus]]:
    """A store and a bus that is connected to others over it."""
    async with open_storage(settings) as store:
        bus = Bus()
        async with open_link(store, bus):
            yield store, bus
