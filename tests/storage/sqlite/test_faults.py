"""What callers and the log are told when SQLite fails: a full disk, damaged pages, a held lock."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.errors import StorageDamaged, Unavailable
from shared_context_server.observability.logs import THROTTLE
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from shared_context_server.storage.contract import MessageQuery
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.storage.builders import ADMIN, add_message, add_session, allow

PATIENCE_S = 30


@pytest.fixture(autouse=True)
def fresh_lines() -> None:
    """No line is held back for what an earlier test has met."""
    THROTTLE.forget()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The reasons that the log gives."""
    lines = [record.msg for record in caplog.records if "storage failed" in record.getMessage()]
    return [line["reason"] for line in lines if isinstance(line, dict)]


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


async def test_a_full_disk_is_told_and_not_ready_until_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        settings = Settings(data_dir=disk / "data", database_url=None)
        async with open_storage(settings) as store:
            await add_session(store, "s")
            ballast = disk / "ballast"
            ballast.write_bytes(b"x" * 1_000_000)
            await _until_full(lambda: add_message(store, "s", content="x" * 20_000))
            # A small write may still find room at the end of the log; then the next one does not.
            await _until_full(store.maintenance.ping)
            assert told(caplog) == ["the disk is full"]
            ballast.unlink()
            await store.maintenance.ping()
            await add_message(store, "s")


async def _until_full(write: Callable[[], Awaitable[object]]) -> None:
    error: Unavailable | None = None
    async with asyncio.timeout(PATIENCE_S):
        while error is None:
            try:
                await write()
            except Unavailable as exc:
                error = exc
    assert "disk is full" in error.message


@asynccontextmanager
async def damaged(settings: Settings) -> AsyncIterator[Store]:
    """A store in whose file the pages of messages are overwritten."""
    async with open_storage(settings) as store:
        await add_session(store, "s")
        await asyncio.gather(*(add_message(store, "s", content="y" * 900) for _ in range(200)))
    database = database_path(settings)
    content = bytearray(database.read_bytes())
    for start in range(0, len(content), 4096):
        if b"y" * 900 in content[start : start + 4096]:
            content[start : start + 4096] = b"\x5a" * 4096
    database.write_bytes(content)
    async with open_storage(settings) as store:
        yield store


async def test_damage_is_told_as_such_and_not_to_be_retried(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with damaged(settings) as store:
        for _ in range(5):
            with pytest.raises(StorageDamaged) as caught:
                await store.messages.list_visible("s", ADMIN, MessageQuery(limit=1000), allow)
        with pytest.raises(StorageDamaged):
            await add_message(store, "s")
        assert (await store.sessions.get("s")).id == "s"  # what is whole is still served
    assert caught.value.retryable is False
    assert caught.value.retry_after_s is None
    assert told(caplog) == ["the database is damaged"]


def hold_lock(database: str, held: Any, release: Any) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        held.set()
        release.wait(PATIENCE_S)


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Another process has the write lock."""
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    arguments = (str(database_path(settings)), held, release)
    process = context.Process(target=hold_lock, args=arguments)
    process.start()
    try:
        assert held.wait(PATIENCE_S)
        yield
    finally:
        release.set()
        process.join(PATIENCE_S)


async def test_every_write_waits_for_a_lock_as_long_as_it_may_and_no_longer(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    lock_wait_s = 4.0  # its tenths are what a busy machine may take longer
    settings = settings.model_copy(update={"sqlite_busy_timeout_ms": int(lock_wait_s * 1000)})

    async def write(store: Store, after_s: float) -> None:
        await asyncio.sleep(after_s)  # so that it comes while the first one waits for the lock
        # Once those behind waited for the first one, and then for the lock.
        async with asyncio.timeout(lock_wait_s * 1.4):
            with pytest.raises(Unavailable, match="locked"):
                await add_message(store, "s")

    async with open_storage(settings) as store:
        await add_session(store, "s")
        with locked(settings):
            await asyncio.gather(write(store, 0), write(store, lock_wait_s / 2))
        assert (await add_message(store, "s")).seq == 1
    assert told(caplog) == ["another process keeps the database locked"]


async def test_a_call_that_is_not_answered_ends(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a disk that is frozen: the thread that writes does not come back."""
    settings = settings.model_copy(
        update={"sqlite_busy_timeout_ms": 600_000, "sqlite_timeout": 0.3}
    )
    async with open_storage(settings) as store:
        await add_session(store, "s")
        with locked(settings):
            for _ in range(3):
                await _expect_no_answer(add_message(store, "s"))
            await _expect_no_answer(store.maintenance.ping())
    assert told(caplog) == ["it does not answer in time"]


async def _expect_no_answer(call: Awaitable[object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unavailable, match="in time"):
            await call


@contextmanager
def freezable_disk(directory: Path) -> Iterator[Path]:
    """A file system in a file, which fsfreeze stops as a hanging disk does."""
    image, mount = directory / "image", directory / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "mount", "fsfreeze"))):
        pytest.skip("only root can freeze a file system")
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    command = ["mount", "-o", "loop", str(image), str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


async def test_a_frozen_disk_leaves_no_call_without_an_answer(tmp_path: Path) -> None:
    with freezable_disk(tmp_path) as disk:
        settings = Settings(data_dir=disk / "data", database_url=None, sqlite_timeout=0.5)
        async with open_storage(settings) as store:
            await add_session(store, "s")
            subprocess.run(["fsfreeze", "--freeze", str(disk)], check=True)
            try:
                await _expect_no_answer(add_message(store, "s"))
                await _expect_no_answer(store.maintenance.ping())
            finally:
                subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    with suppress(Unavailable):
                        await add_message(store, "s")
                        return
