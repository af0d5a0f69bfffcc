"""Several processes on one file, and processes that die."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import shared_context_server
from shared_context_server.settings import Settings
from shared_context_server.storage import open_storage
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.storage.builders import ADMIN, add_message, add_session, allow, read_whole_log

PATIENCE_S = 60  # a process that takes longer than this has failed
WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[3]

StartWorker = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_worker(settings: Settings) -> Iterator[StartWorker]:
    """Starts worker.py with a task and its arguments."""
    package_root = Path(shared_context_server.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{package_root}{os.pathsep}{ROOT}"}
    started: list[subprocess.Popen[str]] = []

    def start(task: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(WORKER), task, str(settings.data_dir), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> list[str]:
    """The lines it printed, of a process that ended well."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return out.splitlines()


def read_acknowledged(lines: list[str]) -> dict[str, int]:
    """Contents and their seqs."""
    return {content: int(seq) for content, seq in (line.split() for line in lines)}


def check_integrity(settings: Settings) -> None:
    with closing(sqlite3.connect(database_path(settings))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


async def read_log(settings: Settings) -> dict[str, int]:
    """Contents and seqs of a log that is gapless, as are its counts."""
    async with open_storage(settings) as store:
        log = await read_whole_log(store)
        assert [message.seq for message in log] == list(range(1, len(log) + 1))
        reader = await store.sessions.summarize("session_1", ADMIN, allow)
        assert reader.message_count == len(log)
    contents = {message.content: message.seq for message in log}
    assert len(contents) == len(log)  # nothing twice
    return contents


async def test_two_processes_write_one_gapless_log(
    settings: Settings, start_worker: StartWorker
) -> None:
    async with open_storage(settings) as store:
        await add_session(store)
    workers = [start_worker("add_messages", name, "1500") for name in ("a", "b")]
    acknowledged: dict[str, int] = {}
    for worker in workers:
        acknowledged |= read_acknowledged(finish(worker))
    assert len(acknowledged) == 3000
    assert await read_log(settings) == acknowledged
    check_integrity(settings)


async def test_what_a_killed_process_had_acknowledged_is_there(
    settings: Settings, start_worker: StartWorker
) -> None:
    """Beside one that lives on, and both have the file open."""
    async with open_storage(settings) as store:
        await add_session(store)
        for round_ in range(3):
            worker = start_worker("add_messages", f"w{round_}", "0")
            assert worker.stdout is not None
            lines = [worker.stdout.readline() for _ in range(500)]
            worker.send_signal(signal.SIGKILL)
            rest, _ = worker.communicate(timeout=PATIENCE_S)
            lines += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
            await add_message(store, content=f"alive {round_}")
            log = await read_whole_log(store)
            found = {message.content: message.seq for message in log}
            acknowledged = read_acknowledged(lines)
            assert len(acknowledged) >= 500
            assert acknowledged.items() <= found.items()
    assert "alive 2" in await read_log(settings)
    check_integrity(settings)


async def test_the_last_process_on_the_file_may_be_killed(
    settings: Settings, start_worker: StartWorker
) -> None:
    async with open_storage(settings) as store:
        await add_session(store)
    worker = start_worker("add_messages", "w", "0")
    assert worker.stdout is not None
    lines = [worker.stdout.readline() for _ in range(500)]
    worker.send_signal(signal.SIGKILL)
    worker.communicate(timeout=PATIENCE_S)
    assert read_acknowledged(lines).items() <= (await read_log(settings)).items()
    check_integrity(settings)


async def test_five_processes_may_be_the_first_at_once(
    settings: Settings, start_worker: StartWorker
) -> None:
    names = {f"session_{index}" for index in range(5)}
    workers = [start_worker("start", name) for name in names]
    assert {line for worker in workers for line in finish(worker)} == names
    async with open_storage(settings) as store:
        listed = await store.sessions.list_visible(ADMIN, status=None, created_by=None, limit=10)
        assert {summary.session.id for summary in listed.items} == names
    check_integrity(settings)


async def test_a_process_out_of_space_refuses_and_recovers(
    settings: Settings, start_worker: StartWorker
) -> None:
    async with open_storage(settings) as store:
        await add_session(store)
    *written, refused, after = finish(start_worker("run_out_of_space"))
    assert len(written) > 3
    assert refused == "refused"
    assert after == f"after {len(written) + 1}"
    assert len(await read_log(settings)) == len(written) + 1
    check_integrity(settings)


async def test_a_program_that_forgets_to_close_still_ends(
    settings: Settings, start_worker: StartWorker
) -> None:
    async with open_storage(settings) as store:
        await add_session(store)
    assert finish(start_worker("abandon")) == ["leaving"]
    assert len(await read_log(settings)) == 1
