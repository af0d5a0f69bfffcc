"""Sessions in which nothing has happened for a while: which they are, and that they are deleted once."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from shared_context_server.errors import SessionNotFound
from shared_context_server.storage import Store
from shared_context_server.storage.contract import AuditQuery
from tests.storage.builders import (
    ALICE,
    NOON,
    add_message,
    add_session,
    address,
    allow,
    at,
    make_audit,
    put,
)

DAY = timedelta(days=1)
LATER = NOON + DAY  # idle since then


async def find_idle(store: Store, *, limit: int = 100) -> list[str]:
    """All of them, page by page."""
    found: list[str] = []
    after = None
    while True:
        page = await store.sessions.examine_idle(LATER, limit=limit, after=after)
        found += page.idle
        after = page.next_after
        if after is None:
            return found


async def test_a_session_is_idle_unless_something_was_written_in_it(store: Store) -> None:
    for name in ("silent", "with_old_message", "closed_before", "held_before", "old_memory"):
        await add_session(store, name)
    await add_message(store, "with_old_message")
    await store.sessions.close("closed_before", at(1), allow, make_audit())
    await set_memory(store, "old_memory", NOON)
    await hold_lease(store, "held_before", NOON)
    for name in ("new_message", "closed_later", "held_later", "new_memory"):
        await add_session(store, name)
    await add_session(store, "new", created_at=LATER)
    await add_message(store, "new_message")
    await add_message(store, "new_message", created_at=LATER)
    await store.sessions.close("closed_later", LATER, allow, make_audit())
    await set_memory(store, "new_memory", LATER)
    await hold_lease(store, "held_later", LATER - timedelta(seconds=30))
    idle = ["closed_before", "held_before", "old_memory", "silent", "with_old_message"]
    assert await find_idle(store) == idle
    assert await find_idle(store, limit=1) == idle


async def set_memory(store: Store, session_id: str, now: datetime) -> None:
    place = address("k", session_id=session_id, owner="alice")
    await store.memory.write(place, ALICE, put(1), now=now, guard=allow)


async def hold_lease(store: Store, session_id: str, now: datetime) -> None:
    minute = timedelta(minutes=1)
    await store.leases.acquire(session_id, "l", ALICE, ttl=minute, now=now, guard=allow)


async def test_an_idle_session_is_deleted_and_recorded_once(store: Store) -> None:
    await add_session(store, "old")
    await add_message(store, "old")
    audit = make_audit("session_expired", agent_id="", session_id="old")
    attempts = [store.sessions.delete_idle("old", LATER, audit) for _ in range(4)]
    assert sorted(await asyncio.gather(*attempts)) == [False, False, False, True]
    with pytest.raises(SessionNotFound):
        await store.sessions.get("old")
    entries = await store.audit.list_newest(AuditQuery(limit=10, event_type="session_expired"))
    assert [(entry.session_id, entry.agent_id) for entry in entries] == [("old", "")]
    assert await find_idle(store) == []


async def test_a_session_that_came_back_to_life_is_not_deleted(store: Store) -> None:
    await add_session(store, "old")
    assert await find_idle(store) == ["old"]
    await add_message(store, "old", created_at=LATER)
    assert await store.sessions.delete_idle("old", LATER, make_audit()) is False
    assert (await store.sessions.get("old")).last_seq == 1
    assert await store.sessions.delete_idle("none", LATER, make_audit()) is False
