"""One store of each kind, opened for a test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from tests.postgres import DatabaseServer

T = TypeVar("T")


@contextmanager
def open_sqlite_settings(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Settings]:
    yield Settings(data_dir=data_dir, database_url=None)


@contextmanager
def open_postgres_settings(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Settings]:
    server: DatabaseServer = request.getfixturevalue("postgres")
    with server.new_database() as found:
        yield Settings(data_dir=data_dir, **found)


EMPTY_STORES = {"sqlite": open_sqlite_settings, "postgresql": open_postgres_settings}
"""How the tests come by the settings of an empty store of each kind. A kind that is added here runs
all tests of the contract."""

STORES = list(EMPTY_STORES)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an SQLite store that does not exist yet."""
    return Settings(data_dir=tmp_path / "data", database_url=None)


@pytest.fixture(params=STORES)
def any_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Of an empty store of each kind."""
    with open_settings(request, tmp_path / "data") as settings:
        yield settings


@contextmanager
def open_settings(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Settings]:
    """Of an empty store of the kind that request.param names."""
    with EMPTY_STORES[request.param](request, data_dir) as settings:
        yield settings


@pytest.fixture
async def store(any_settings: Settings) -> AsyncIterator[Store]:
    """An empty store. All tests that use it are the contract, and run on every kind."""
    settings = any_settings
    async with open_storage(settings) as store:
        yield store


class BlockingStore:
    """A store that Hypothesis, which calls plain functions, can drive; each example takes a
    session of its own.
    """

    def __init__(self, runner: asyncio.Runner, store: Store) -> None:
        self._runner = runner
        self._names = (f"session_{number}" for number in itertools.count())
        self.store = store

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def next_name(self) -> str:
        return next(self._names)


@pytest.fixture(scope="module", params=STORES)
def blocking(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BlockingStore]:
    data_dir = tmp_path_factory.mktemp("properties")
    with open_settings(request, data_dir) as chosen, asyncio.Runner() as runner:
        opening = open_storage(chosen)
        yield BlockingStore(runner, runner.run(_enter(opening)))
        runner.run(_leave(opening))


async def _enter(opening: Any) -> Store:
    store: Store = await opening.__aenter__()
    return store


async def _leave(opening: Any) -> None:
    await opening.__aexit__(None, None, None)
