"""A cursor beyond the end of a log, and a store that is set back under a running server."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared_context_server.server import Server
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.surfaces.conftest import As, Surface, headers_of
from tests.surfaces.test_subscriptions import subscribe_modern
from tests.until import until

PATIENCE_S = 30


async def new_session(surface: Surface, *contents: str) -> str:
    created = await surface.call("create_session", purpose="x")
    session_id: str = created["session_id"]
    await add(surface, session_id, *contents)
    return session_id


async def add(surface: Surface, session_id: str, *contents: str) -> None:
    for content in contents:
        await surface.call("add_message", session_id=session_id, content=content)


@pytest.mark.parametrize("tool", ["get_messages", "wait_for_messages", "get_digest"])
async def test_a_cursor_beyond_the_end_is_told_and_one_at_the_end_is_not(
    as_agent: As, tool: str
) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice, "one", "two")
    lost = await alice.call(tool, session_id=session_id, after_seq=3)
    assert lost.is_error
    assert (lost["code"], lost["retryable"]) == ("CURSOR_LOST", False)
    assert lost["details"] == {"field": "after_seq", "cursor": 3}
    assert "from 0" in lost["suggestion"]
    in_time = {"timeout_seconds": 0} if tool == "wait_for_messages" else {}
    at_the_end = await alice.call(tool, session_id=session_id, after_seq=2, **in_time)
    assert not at_the_end.is_error
    assert at_the_end["next_after_seq"] == 2


async def test_a_session_that_may_not_be_read_tells_nothing_of_its_end(as_agent: As) -> None:
    alice, eve = await as_agent("alice"), await as_agent("eve")
    created = await alice.call("create_session", purpose="x", access="invited")
    refused = await eve.call("get_messages", session_id=created["session_id"], after_seq=9)
    assert refused["code"] in ("SESSION_NOT_FOUND", "PERMISSION_DENIED")


@pytest.mark.parametrize("is_all_sessions", [False, True])
async def test_a_stream_is_not_resumed_behind_the_end(
    as_agent: As, url: str, is_all_sessions: bool
) -> None:
    session_id = await new_session(await as_agent("alice"), "one")
    params = {} if is_all_sessions else {"session_id": session_id}
    headers = headers_of("bob") | {"Last-Event-ID": "1000"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        answer = await client.get("/events", params=params)
    assert answer.status_code == 409
    assert answer.json()["code"] == "CURSOR_LOST"


@pytest.fixture
def set_back(server: Server, tmp_path: Path) -> Callable[[bool], Awaitable[None]]:
    """Keep the state of the database, or put the kept state back, as `sqlite3 .restore` does."""
    if server.settings.database_url is not None:
        pytest.skip("PostgreSQL has tests/postgres_faults/test_set_back.py")
    database, saved = database_path(server.settings), tmp_path / "saved.db"

    async def copy(is_saved: bool) -> None:
        source, target = (database, saved) if is_saved else (saved, database)
        with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
            one.backup(other)

    return copy


async def test_who_waits_searches_or_watches_is_told_of_a_store_that_was_set_back(
    as_agent: As, server: Server, url: str, set_back: Callable[[bool], Awaitable[None]]
) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice, "kept")
    await set_back(True)
    await add(alice, session_id, "lost one", "lost two")
    search: dict[str, Any] = {"session_id": session_id, "query": "lost", "fuzzy_threshold": 90}
    assert (await bob.call("search_context", **search))["count"] == 2
    wait = {"session_id": session_id, "after_seq": 3, "timeout_seconds": PATIENCE_S}
    leases = f"session://{session_id}/leases"
    async with subscribe_modern(url, headers_of("eve"), leases) as eve:
        waiting = asyncio.ensure_future(bob.call("wait_for_messages", **wait))
        await until(lambda: server.services.bus.subscriber_count == 2)
        await set_back(False)
        waited = await waiting
        assert waited["code"] == "CURSOR_LOST"
        await eve.hear(leases)
    assert (await bob.call("search_context", **search))["count"] == 0
    await add(alice, session_id, "anew one", "anew two", "anew three")
    assert (await bob.call("search_context", **search))["count"] == 0
    anew = await bob.call("search_context", **(search | {"query": "anew"}))
    assert anew["count"] == 3


async def test_a_search_knows_a_log_that_was_written_anew_to_the_same_length(
    as_agent: As, set_back: Callable[[bool], Awaitable[None]]
) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice, "kept")
    await set_back(True)
    await add(alice, session_id, "lost one", "lost two")
    search: dict[str, Any] = {"session_id": session_id, "query": "lost", "fuzzy_threshold": 90}
    assert (await alice.call("search_context", **search))["count"] == 2
    await set_back(False)
    await add(alice, session_id, "anew one", "anew two")
    assert (await alice.call("search_context", **search))["count"] == 0
    assert (await alice.call("search_context", **search))["scanned"] == 3


async def test_a_stream_ends_with_an_event_when_the_store_is_set_back(
    as_agent: As, server: Server, url: str, set_back: Callable[[bool], Awaitable[None]]
) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice, "kept")
    await set_back(True)
    await add(alice, session_id, "lost")
    params = {"session_id": session_id}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers_of("bob"), timeout=PATIENCE_S) as client,
        client.stream("GET", "/events", params=params) as response,
    ):
        await until(lambda: server.services.bus.subscriber_count == 1)
        await set_back(False)
        lines = [line async for line in response.aiter_lines() if line.startswith("event")]
    assert lines == ["event: log_set_back"]
