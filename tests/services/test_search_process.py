"""Searching in a process of its own: answers, errors, and what happens when it does not answer."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from shared_context_server.errors import InvalidArgument, SessionNotFound
from shared_context_server.models import Caller, Visibility
from shared_context_server.server import open_server
from shared_context_server.services import search, search_child, search_process
from shared_context_server.services.children import write_settings
from shared_context_server.services.context import Services
from shared_context_server.services.search import SearchAnswer, search_context
from shared_context_server.services.search_process import SearchProcess, read_frame, write_frame
from shared_context_server.services.search_request import SearchRequest
from tests.settings import make_settings
from tests.storage.builders import ALICE, BOB, add_message, add_session
from tests.until import PATIENCE_S, until

REQUEST = SearchRequest(
    session_id="session_1", query="neddle in haystack", fuzzy_threshold=60, limit=10
)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """A server with a search process that may be started, and a session with some messages."""
    settings = make_settings(tmp_path)
    async with open_server(settings) as server:
        process = SearchProcess(settings, None)
        services = replace(server.services, search_process=process)
        await add_session(services.store)
        for number in range(20):
            await add_message(services.store, content=f"a needle in haystack {number}")
        await add_message(
            services.store, content="a needle of Alice's own", visibility=Visibility.PRIVATE
        )
        await wait_until_indexed(services)
        yield services
        await process.aclose()


async def wait_until_indexed(services: Services) -> None:
    """Scores depend on how many texts the index has."""
    newest = await services.store.messages.get_newest_id()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            size = await services.candidates.measure()
            if size is not None and size.message_id >= newest:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def process(services: Services) -> SearchProcess:
    assert services.search_process is not None
    return services.search_process


def list_children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and search_process.CHILD in child.cmdline()
    ]


async def find(services: Services, caller: Caller = BOB, **changes: object) -> SearchAnswer:
    return await search_context(services, caller, replace(REQUEST, **changes))  # type: ignore[arg-type]


async def start(services: Services, monkeypatch: pytest.MonkeyPatch) -> psutil.Process:
    """Search as much as is worth a process, and return it when it answers."""
    monkeypatch.setattr(search_process, "MUCH_S", 0.0)
    await find(services)
    monkeypatch.setattr(search_process, "MUCH_S", 3600.0)
    process = services.search_process
    assert process is not None
    await until(lambda: process.is_answering)
    (child,) = list_children()
    return child


def without_time(answer: SearchAnswer) -> SearchAnswer:
    return replace(answer, search_time_ms=0.0)


async def test_few_searches_start_no_process(services: Services) -> None:
    for _ in range(3):
        await find(services)
    assert not list_children()


async def test_the_process_answers_as_the_server_does(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {
        caller.agent_id: [
            without_time(await find(services, caller)),
            without_time(await find(services, caller, session_id=None, query="needle of own")),
        ]
        for caller in (ALICE, BOB)
    }
    await start(services, monkeypatch)
    monkeypatch.setattr(search, "search_here", None)  # a search here would fail
    for caller in (ALICE, BOB):
        assert here[caller.agent_id] == [
            without_time(await find(services, caller)),
            without_time(await find(services, caller, session_id=None, query="needle of own")),
        ]
    assert here["alice"] != here["bob"]
    first = await find(services, limit=2)
    second = await find(services, limit=2, cursor=first.next_cursor)
    assert {hit.message.id for hit in first.hits}.isdisjoint(hit.message.id for hit in second.hits)


async def test_the_process_finds_what_was_just_written_and_raises_what_the_server_raises(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(services, monkeypatch)
    monkeypatch.setattr(search, "search_here", None)
    for number in range(10):
        await add_message(services.store, content=f"wombat{number}lantern")
        found = await find(services, query=f"wombat{number}lantern")
        assert found.hits[0].message.content == f"wombat{number}lantern"
    with pytest.raises(SessionNotFound) as missing:
        await find(services, session_id="session_unknown")
    assert missing.value.details["session_id"] == "session_unknown"
    with pytest.raises(InvalidArgument) as wrong:
        await find(services, cursor="nonsense")
    assert wrong.value.details["field"] == "cursor"
    many = " ".join(f"word{number}" for number in range(40))
    with pytest.raises(InvalidArgument, match="different words"):
        await find(services, query=many)


async def test_searches_of_a_killed_process_are_answered_here(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(services, monkeypatch)
    monkeypatch.setattr(search_process, "ANSWER_S", 3600.0)
    child.send_signal(signal.SIGSTOP)
    asked = [asyncio.create_task(find(services)) for _ in range(5)]
    await asyncio.sleep(0.05)  # they have been sent, or they are answered here at once
    child.kill()
    for answer in await asyncio.gather(*asked):
        assert len(answer.hits) == 10
    await until(lambda: not child.is_running())
    assert (await find(services)).hits


async def test_a_process_that_failed_is_not_started_again_at_once(
    services: Services, process: SearchProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(services, monkeypatch)
    child.kill()
    await until(lambda: not process.is_running)
    monkeypatch.setattr(search_process, "MUCH_S", 0.0)
    await find(services)
    assert not process.is_running


async def test_a_process_that_does_not_answer_is_ended(
    services: Services, process: SearchProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(services, monkeypatch)
    monkeypatch.setattr(search_process, "ANSWER_S", 0.2)
    child.send_signal(signal.SIGSTOP)
    assert (await find(services)).hits
    await until(lambda: not process.is_running)
    assert not list_children()


async def test_a_cancelled_search_leaves_the_process_serving(
    services: Services, process: SearchProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(services, monkeypatch)
    frames: list[Any] = []

    def write(writer: asyncio.StreamWriter, content: Any) -> None:
        frames.append(content)
        write_frame(writer, content)

    monkeypatch.setattr(search_process, "write_frame", write)
    child.send_signal(signal.SIGSTOP)
    asked = asyncio.create_task(find(services))
    await asyncio.sleep(0.05)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert frames[-1] == (frames[-2][0], None, None)  # the number of that search, and nothing
    child.send_signal(signal.SIGCONT)
    monkeypatch.setattr(search, "search_here", None)
    assert (await find(services)).hits
    assert process.is_answering


async def test_the_process_ends_with_the_server(
    services: Services, process: SearchProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(services, monkeypatch)
    await process.aclose()
    assert not child.is_running()


async def test_a_server_that_stops_does_not_wait_for_a_process_that_hangs(
    services: Services, process: SearchProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(services, monkeypatch)
    monkeypatch.setattr(search_process, "ANSWER_S", 3600.0)
    child.send_signal(signal.SIGSTOP)
    asked = [asyncio.create_task(find(services)) for _ in range(3)]
    await asyncio.sleep(0.05)
    process.begin_closing()
    monkeypatch.setattr(search_process, "MUCH_S", 0.0)
    for answer in await asyncio.gather(*asked):
        assert answer.hits
    assert not list_children()


async def test_a_process_that_cannot_read_the_store_costs_no_search(
    services: Services, process: SearchProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process._expected = ("another", "store")  # type: ignore[assignment]
    monkeypatch.setattr(search_process, "MUCH_S", 0.0)
    assert (await find(services)).hits
    await until(lambda: not process.is_running)
    assert (await find(services)).hits


class Child:
    """The child's side, run by the test, over a socket of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, number: int, request: SearchRequest | None) -> None:
        write_frame(self.writer, (number, BOB, request))
        await self.writer.drain()


@asynccontextmanager
async def serve_here(services: Services, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Child]:
    monkeypatch.setattr(search_child, "_end_soon", lambda: None)  # it would end the tests
    monkeypatch.setattr(search_child.gc, "freeze", lambda: None)
    ours, theirs = socket.socketpair()
    serving = asyncio.create_task(search_child.serve(theirs))
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    write_frame(writer, (write_settings(services.settings), None))
    assert await read_frame(reader) is None
    yield Child(reader, writer)
    writer.close()
    await serving


async def test_the_child_ends_when_nothing_is_searched(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_child, "IDLE_S", 0.05)
    async with serve_here(services, monkeypatch) as child:
        async with asyncio.timeout(PATIENCE_S):
            assert await child.reader.read() == b""


async def test_the_child_stops_a_search_that_nobody_waits_for(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def hang(*_: object) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serve_here(services, monkeypatch) as child:
        monkeypatch.setattr(search_child, "search_here", hang)
        await child.ask(1, REQUEST)
        await began.wait()
        await child.ask(1, None)
        await ended.wait()
        monkeypatch.setattr(search_child, "search_here", search.search_here)
        await child.ask(2, REQUEST)
        number, answer = await read_frame(child.reader)
        assert number == 2
        assert len(answer.hits) == 10
