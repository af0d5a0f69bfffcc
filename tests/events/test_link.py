"""Processes on one store wake each other, and cost nothing while nobody waits."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import pytest

import shared_context_server
from shared_context_server.events.bus import Bus
from shared_context_server.models import Event, EventKind
from shared_context_server.settings import Settings
from shared_context_server.storage import Store
from shared_context_server.storage.sqlite.changes import ChangeStream
from shared_context_server.storage.sqlite.engine.wakeup_sockets import (
    MAX_PATH_BYTES,
    WakeupSockets,
    find_socket_dir,
    remove_abandoned_dirs,
)
from tests.events.conftest import PATIENCE_S, open_linked
from tests.events.news import next_events, wait_for_event, wait_for_resync
from tests.storage.builders import ALICE, NOON, add_message, add_session, address, put
from tests.until import until

PEER = Path(__file__).with_name("peer.py")
ROOT = Path(__file__).parents[2]
# Above what a notified wake-up takes on a busy machine, below the interval of looking without one,
# whose shortest waits are excluded by taking the best of several.
PROMPT_S = 0.1

Linked = tuple[Store, Bus]
StartPeer = Callable[[str], "subprocess.Popen[str]"]


def want_all(event: Event) -> bool:
    return True


def added(seq: int) -> Event:
    return Event(EventKind.MESSAGE_ADDED, "session_1", seq=seq)


@pytest.fixture
async def linked(settings: Settings) -> AsyncIterator[Linked]:
    async with open_linked(settings) as (store, bus):
        await add_session(store)
        yield store, bus


@pytest.fixture
def start_peer(settings: Settings) -> Iterator[StartPeer]:
    """Starts peer.py with a task."""
    package_root = Path(shared_context_server.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{package_root}{os.pathsep}{ROOT}"}
    started: list[subprocess.Popen[str]] = []

    def start(task: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(PEER), task, str(settings.data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def hear(process: subprocess.Popen[str]) -> str:
    """The next line the peer prints."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await asyncio.to_thread(process.stdout.readline)).strip()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def socket_dir_of(store: Store) -> Path:
    assert isinstance(store.changes, ChangeStream)
    return store.changes.engine.socket_dir


def sockets_of(store: Store) -> set[str]:
    with suppress(FileNotFoundError):
        return {path.name for path in find_socket_dir(socket_dir_of(store)).iterdir()}
    return set()


async def test_what_one_process_writes_wakes_another(linked: Linked, start_peer: StartPeer) -> None:
    _, bus = linked
    writer = start_peer("write")
    assert await hear(writer) == "ready"
    best_s = PATIENCE_S
    with bus.subscribe(want_all, session_id="session_1") as subscription:
        await wait_for_resync(subscription)
        for seq in range(1, 11):
            started = time.perf_counter()
            tell(writer, "hello")
            await wait_for_event(subscription, added(seq))
            best_s = min(best_s, time.perf_counter() - started)
    assert best_s < PROMPT_S


async def test_what_this_process_writes_wakes_the_other(
    linked: Linked, start_peer: StartPeer
) -> None:
    store, bus = linked
    listener = start_peer("wait_for_news")
    assert await hear(listener) == "listening"
    best_s = PATIENCE_S
    for seq in range(1, 11):
        await add_message(store)
        bus.publish(added(seq))
        started = time.perf_counter()
        assert await hear(listener) == f"message_added {seq}"
        best_s = min(best_s, time.perf_counter() - started)
    assert best_s < PROMPT_S


async def test_a_writer_that_does_not_ring_is_heard_too(
    linked: Linked, start_peer: StartPeer
) -> None:
    """A command, an older program, a wake-up that got lost."""
    _, bus = linked
    writer = start_peer("write")
    assert await hear(writer) == "ready"
    with bus.subscribe(want_all) as subscription:
        await wait_for_resync(subscription)
        tell(writer, "quietly")
        await wait_for_event(subscription, added(1))


async def test_other_news_than_messages_crosses_too(linked: Linked, start_peer: StartPeer) -> None:
    store, bus = linked
    listener = start_peer("wait_for_news")
    assert await hear(listener) == "listening"
    await store.memory.write(address("k"), ALICE, put(1), now=NOON, guard=None)
    bus.publish(Event(EventKind.MEMORY_CHANGED, name="k"))
    assert await hear(listener) == "memory_changed None"
    bus.publish(Event(EventKind.AGENT_JOINED, agent_id="alice"))  # is stored nowhere else
    assert await hear(listener) == "agent_joined None"


async def test_nothing_is_lost_while_listening_begins(linked: Linked, settings: Settings) -> None:
    """A message of another process at any moment of it: heard of, or there at the next look."""
    other, _ = linked
    for seq in range(1, 31):
        async with open_linked(settings) as (store, bus):
            with bus.subscribe(want_all, session_id="session_1") as subscription:
                seen = (await store.sessions.get("session_1")).last_seq
                assert seen == seq - 1
                writing = asyncio.create_task(add_message(other))
                for _ in range(seq % 7):
                    await asyncio.sleep(0)
                while seen < seq:
                    assert await subscription.wait(PATIENCE_S) is not None, "nothing woke it"
                    seen = (await store.sessions.get("session_1")).last_seq
                await writing


async def test_own_messages_are_heard_once(linked: Linked) -> None:
    store, bus = linked
    with bus.subscribe(want_all) as subscription:
        await wait_for_resync(subscription)
        await add_message(store)
        bus.publish(added(1))
        await store.memory.write(address("k"), ALICE, put(1), now=NOON, guard=None)
        heard: list[Event] = []
        while not heard or heard[-1].kind is not EventKind.MEMORY_CHANGED:
            heard += await next_events(subscription)  # the link's own look, which sees both
        assert [event.kind for event in heard].count(EventKind.MESSAGE_ADDED) == 1


async def test_while_nobody_waits_there_is_no_socket_and_nothing_is_read(
    linked: Linked,
) -> None:
    store, bus = linked
    assert sockets_of(store) == set()
    with bus.subscribe(want_all):
        assert len(sockets_of(store)) == 1
    await until(lambda: sockets_of(store) == set())

    def tasks() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks()}

    await until(lambda: "events-link" not in tasks())
    await add_message(store)
    bus.publish(added(1))
    assert "events-link" not in tasks()
    assert sockets_of(store) == set()


async def test_who_waits_again_soon_keeps_the_socket(linked: Linked) -> None:
    store, bus = linked
    with bus.subscribe(want_all) as subscription:
        await wait_for_resync(subscription)
        sockets = sockets_of(store)
    with bus.subscribe(want_all) as subscription:
        assert sockets_of(store) == sockets
        assert await subscription.wait(0) is None


async def test_closing_leaves_no_socket(settings: Settings) -> None:
    async with open_linked(settings) as (store, bus):
        with bus.subscribe(want_all) as subscription:
            await wait_for_resync(subscription)
            assert len(sockets_of(store)) == 1
    assert sockets_of(store) == set()


async def test_the_socket_of_a_killed_process_is_cleared_away(
    linked: Linked, start_peer: StartPeer
) -> None:
    store, bus = linked
    listener = start_peer("wait_for_news")
    assert await hear(listener) == "listening"
    survivor = start_peer("wait_for_news")
    assert await hear(survivor) == "listening"
    assert len(sockets_of(store)) == 2
    listener.send_signal(signal.SIGKILL)
    listener.wait(PATIENCE_S)
    await add_message(store)
    bus.publish(added(1))
    assert await hear(survivor) == "message_added 1"
    await until(lambda: len(sockets_of(store)) == 1)


async def test_a_deep_data_dir_has_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep = Settings(data_dir=tmp_path / ("d" * 100), database_url=None)
    async with open_linked(deep) as (store, bus), open_linked(deep) as (other, other_bus):
        directory = find_socket_dir(socket_dir_of(store))
        assert directory != socket_dir_of(store)
        await add_session(store)
        with bus.subscribe(want_all) as subscription:
            await wait_for_resync(subscription)
            (socket,) = directory.iterdir()
            assert len(os.fsencode(socket)) <= MAX_PATH_BYTES
            await add_message(other)
            other_bus.publish(added(1))
            await wait_for_event(subscription, added(1))
    assert not directory.exists()


async def test_a_directory_removed_by_its_last_user_is_made_again(tmp_path: Path) -> None:
    """Whoever begins to listen while another removes the directory has a socket all the same."""
    deep = tmp_path / ("d" * 100)

    async def begin_and_end() -> list[bool]:
        begun = []
        for _ in range(100):
            channel = WakeupSockets(deep, lambda: None)
            begun.append(channel.start_listening())
            channel.close()
        return begun

    both = await asyncio.gather(
        *(asyncio.to_thread(asyncio.run, begin_and_end()) for _ in range(2))
    )
    assert all(all(begun) for begun in both)
    assert not find_socket_dir(deep).exists()


async def test_directories_of_killed_processes_are_removed_and_others_kept(tmp_path: Path) -> None:
    def make(name: str, *, has_socket: bool) -> Path:
        path = tmp_path / f"scs-{name}.bus"
        path.mkdir()
        if has_socket:
            bound = sockets.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            bound.bind(str(path / "1.sock"))
        return path

    user = os.geteuid()
    with ExitStack() as sockets:
        dead = make(f"{user}-dead", has_socket=True)
    empty = make(f"{user}-empty", has_socket=False)
    fresh = make(f"{user}-fresh", has_socket=False)
    foreign = make(f"{user + 1}-foreign", has_socket=False)
    with sockets:
        living = make(f"{user}-living", has_socket=True)
        for path in (dead, empty, living, foreign):
            os.utime(path, (0, 0))
        remove_abandoned_dirs(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([fresh, foreign, living])


async def test_without_sockets_it_looks_more_often(linked: Linked, start_peer: StartPeer) -> None:
    store, bus = linked
    socket_dir_of(store).touch()  # a file where the directory should be
    writer = start_peer("write")
    assert await hear(writer) == "ready"
    best_s = PATIENCE_S
    with bus.subscribe(want_all) as subscription:
        await wait_for_resync(subscription)
        for seq in range(1, 6):
            started = time.perf_counter()
            tell(writer, "hello")
            await wait_for_event(subscription, added(seq))
            best_s = min(best_s, time.perf_counter() - started)
    assert best_s < PROMPT_S


async def test_a_flood_of_rings_is_taken_in_at_once(tmp_path: Path) -> None:
    """A receiver that is full keeps nobody waiting."""
    wakeups: list[None] = []
    receiver = WakeupSockets(tmp_path, lambda: wakeups.append(None))
    sender = WakeupSockets(tmp_path, lambda: None)
    assert receiver.start_listening()
    for _ in range(5000):
        sender.notify()
    await until(lambda: bool(wakeups))
    await anyio.wait_all_tasks_blocked()
    assert len(wakeups) < 10
    sender.close()
    receiver.close()
    assert list(tmp_path.iterdir()) == []


async def test_who_begins_to_listen_in_the_same_tick_is_found(tmp_path: Path) -> None:
    """The directory's time does not tell two changes of one tick of the clock apart."""
    sender = WakeupSockets(tmp_path, lambda: None)
    for _ in range(50):
        wakeups: list[None] = []
        sender.notify()
        channel = WakeupSockets(tmp_path, lambda wakeups=wakeups: wakeups.append(None))
        assert channel.start_listening()
        sender.notify()
        await until(lambda wakeups=wakeups: bool(wakeups))
        channel.close()
    sender.close()


def test_a_socket_name_fits() -> None:
    assert MAX_PATH_BYTES <= 103  # macOS; Linux has 107
    assert socket.AF_UNIX
