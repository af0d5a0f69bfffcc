"""Counters that something else than the store has changed are found and set right, on every store."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta

import asyncpg

from shared_context_server.models import TaskOutcome
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, recount_storage
from shared_context_server.storage.contract import Claim, Finish, Miscount, NewTask
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.storage.builders import (
    ALICE,
    BOB,
    NOON,
    add_message,
    add_session,
    address,
    allow,
    at,
    make_audit,
    put,
)

BREAK = (
    "UPDATE participants SET messages = messages + 2, bytes = bytes - 7"
    " WHERE session_id = 's' AND agent_id = 'bob'",
    "DELETE FROM participants WHERE session_id = 's' AND agent_id = 'alice'",
    "DELETE FROM usage WHERE session_id = '' AND agent_id = 'alice'",
    "UPDATE usage SET sessions = 5 WHERE session_id = 't' AND agent_id = 'root'",
)


async def execute(settings: Settings, *statements: str) -> None:
    if settings.storage_url.startswith("sqlite:"):
        with closing(sqlite3.connect(database_path(settings))) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        return
    server = await asyncpg.connect(settings.storage_url)
    try:
        for statement in statements:
            await server.execute(statement)
    finally:
        await server.close()


async def recount(settings: Settings, *, mends: bool = False) -> list[Miscount]:
    return await asyncio.to_thread(recount_storage, settings, mends=mends)


async def fill(store: Store) -> None:
    """Everything that counts: with what counts no more, and a session that is being removed."""
    for session_id in ("s", "t", "gone"):
        await add_session(store, session_id, created_by="root")
        await add_message(store, session_id, content="☃" * 5, recipients=("bob",))
        await add_message(store, session_id, sender=BOB, metadata={"a": "ü"})
        shared = address("k", session_id=session_id)
        await store.memory.write(shared, BOB, put("ü" * 100), now=NOON, guard=allow)
        await store.memory.write(shared, ALICE, put("y"), now=NOON, guard=allow)
    await store.memory.write(address("own", owner="alice"), ALICE, put(1), now=NOON, guard=None)
    await store.tasks.add(NewTask("s", ALICE, "title", "ü" * 9, 0, None, (), {}, NOON), allow)
    await store.tasks.claim(Claim("s", 1, BOB, timedelta(hours=1), NOON), allow)
    await store.tasks.finish(Finish("s", 1, BOB, 1, TaskOutcome.DONE, "rü", at(1)), allow)
    await store.sessions.delete("gone", allow, make_audit())


async def test_wrong_counters_are_named_and_set_right_beside_writers(
    any_settings: Settings, store: Store
) -> None:
    await fill(store)
    assert await recount(any_settings) == []
    accounts = [
        *((store.agents.measure_usage, name) for name in ("alice", "bob", "root")),
        *((store.sessions.measure_usage, name) for name in ("s", "t")),
    ]
    right = [await measure(name) for measure, name in accounts]

    await execute(any_settings, *BREAK)
    found = {(one.session_id, one.agent_id): one for one in await recount(any_settings)}
    assert set(found) == {("s", "bob"), ("s", "alice"), ("", "alice"), ("t", "root")}
    assert found["s", "bob"] == Miscount("participants", "s", "bob", 0, -2, 0, 7)
    assert found["t", "root"] == Miscount("usage", "t", "root", -4, 0, 0, 0)
    assert found["", "alice"][3:6] == (0, 0, 1)
    assert await recount(any_settings, mends=True) == list(found.values())

    assert await recount(any_settings) == []
    assert [await measure(name) for measure, name in accounts] == right
    await add_message(store, "s")
    assert await recount(any_settings) == []
