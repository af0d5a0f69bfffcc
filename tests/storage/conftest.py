"""One store of each kind, opened for a test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage import Storage, open_storage

T = TypeVar("T")

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


class BlockingStore:
    """A store that Hypothesis, which calls plain functions, can drive; each example takes a
    session of its own.
    """

    def __init__(self, runner: asyncio.Runner, storage: Storage) -> None:
        self._runner = runner
        self._names = (f"session_{number}" for number in itertools.count())
        self.storage = storage

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def next_name(self) -> str:
        return next(self._names)


@pytest.fixture(scope="module", params=STORES)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingStore]:
    chosen = Settings(data_dir=tmp_path_factory.mktemp("properties"), database_url=None)
    with asyncio.Runner() as runner:
        opening = open_storage(chosen)
        yield BlockingStore(runner, runner.run(_enter(opening)))
        runner.run(_leave(opening))


async def _enter(opening: Any) -> Storage:
    storage: Storage = await opening.__aenter__()
    return storage


async def _leave(opening: Any) -> None:
    await opening.__aexit__(None, None, None)
