"""The files of the database while the store has them open: removed, moved, replaced."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from shared_context_server.errors import ConfigurationError, Unavailable
from shared_context_server.observability.logs import THROTTLE
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, identify_storage, open_storage
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.storage.builders import ALICE, add_message, add_session, allow

PATIENCE_S = 30

Change = Callable[[Path], object]


def replace_file(database: Path) -> None:
    """As somebody would who follows a manual: .backup, then mv over it."""
    copy = database.with_name("copy.db")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    copy.rename(database)


def move_directory(database: Path) -> None:
    database.parent.rename(database.parent.with_name("moved"))


CHANGES: dict[str, Change] = {
    "removed": Path.unlink,
    "moved": lambda database: database.rename(database.with_name("moved.db")),
    "replaced": replace_file,
    "its directory moved": move_directory,
    "its directory removed": lambda database: shutil.rmtree(database.parent),
}


@pytest.fixture(autouse=True)
def fresh_lines() -> None:
    """No line is held back for what an earlier test has met."""
    THROTTLE.forget()


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """With a session of one message."""
    async with open_storage(settings) as store:
        await add_session(store, "s")
        await add_message(store, "s")
        yield store


async def refused(store: Store) -> str:
    """What a write is told."""
    with pytest.raises(Unavailable) as caught:
        await add_message(store, "s")
    return caught.value.message


@pytest.mark.parametrize("change", CHANGES)
async def test_nothing_is_acknowledged_from_then_on(
    store: Store, settings: Settings, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    CHANGES[change](database_path(settings))
    message = await refused(store)
    assert ("replaced" if change == "replaced" else "removed") in message
    with pytest.raises(Unavailable):
        await store.maintenance.ping()
    with pytest.raises(Unavailable):
        await store.sessions.get("s")
    for _ in range(20):
        await refused(store)
    told = [record for record in caplog.records if "storage failed" in record.getMessage()]
    assert len(told) == 1


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_a_missing_companion_is_noticed(
    store: Store, settings: Settings, suffix: str
) -> None:
    database = database_path(settings)
    database.with_name(database.name + suffix).unlink()
    error: Unavailable | None = None
    async with asyncio.timeout(PATIENCE_S):
        while error is None:
            try:
                await store.maintenance.ping()
            except Unavailable as exc:
                error = exc
    assert "-wal" in error.message


async def test_a_file_that_comes_back_is_taken_again(store: Store, settings: Settings) -> None:
    database = database_path(settings)
    aside = database.with_name("aside.db")
    database.rename(aside)
    await refused(store)
    aside.rename(database)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(Unavailable):
                assert (await add_message(store, "s")).seq == 2
                return


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_the_new_file_is_not_given_the_old_log(settings: Settings, is_noticed: bool) -> None:
    database = database_path(settings)
    async with open_storage(settings) as store:
        await add_session(store, "s")
        for _ in range(50):
            await add_message(store, "s")
        replace_file(database)
        if is_noticed:
            await refused(store)
    left = {path.name.partition(".replaced-")[0] for path in database.parent.glob("*.replaced-*")}
    assert left == {f"{database.name}-wal", f"{database.name}-shm"}
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (50,)
    async with open_storage(settings) as store:
        assert (await add_message(store, "s")).seq == 51


async def test_no_log_is_left_for_a_file_that_comes_later(settings: Settings) -> None:
    database = database_path(settings)
    async with open_storage(settings) as store:
        await add_session(store, "s")
        database.unlink()
    assert not database.with_name(f"{database.name}-wal").exists()
    assert len(list(database.parent.glob("*-wal.replaced-*"))) == 1


async def test_only_the_expected_file_is_opened(store: Store, settings: Settings) -> None:
    expected = identify_storage(settings)
    async with open_storage(settings, expected) as other:
        assert (await other.messages.get("s", 1, ALICE, allow)).seq == 1
    replace_file(database_path(settings))
    with pytest.raises(ConfigurationError, match="replaced"):
        async with open_storage(settings, expected):
            pass
    database_path(settings).unlink()
    with pytest.raises(ConfigurationError, match="removed"):
        async with open_storage(settings, expected):
            pass
    assert not database_path(settings).exists()


def write_and_die(settings: Settings) -> None:
    async def work() -> None:
        async with open_storage(settings) as store:
            await add_session(store, "s")
            for _ in range(50):
                await add_message(store, "s")
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(work())


@pytest.fixture
def killed(settings: Settings) -> Path:
    """The database of a process that was killed, with its log beside it."""
    process = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(settings,))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL
    database = database_path(settings)
    assert database.with_name(f"{database.name}-wal").stat().st_size > 0
    return database


async def test_a_file_put_in_place_of_a_killed_servers_is_not_given_its_log(
    killed: Path, settings: Settings
) -> None:
    other = settings.model_copy(update={"data_dir": settings.data_dir / "other"})
    async with open_storage(other) as store:
        await add_session(store, "theirs")
        await add_message(store, "theirs")
    database_path(other).rename(killed)
    async with open_storage(settings) as store:
        assert (await store.sessions.get("theirs")).last_seq == 1
        assert (await add_message(store, "theirs")).seq == 2
    assert len(list(killed.parent.glob("*-wal.replaced-*"))) == 1
    with closing(sqlite3.connect(killed)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("is_copied", [False, True])
async def test_a_killed_servers_own_log_is_applied(
    killed: Path, settings: Settings, is_copied: bool
) -> None:
    if is_copied:  # the whole directory, as a snapshot of a volume is
        copy = settings.data_dir.with_name("copy")
        shutil.copytree(settings.data_dir, copy)
        settings = settings.model_copy(update={"data_dir": copy})
    async with open_storage(settings) as store:
        assert (await store.sessions.get("s")).last_seq == 50
    assert not list(settings.data_dir.glob("*.replaced-*"))
