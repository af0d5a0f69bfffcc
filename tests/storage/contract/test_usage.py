"""What a session and an agent have stored is counted with each write, and no longer after its removal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from shared_context_server.models import Caller, MemoryAddress, TaskOutcome
from shared_context_server.storage import Store
from shared_context_server.storage.contract import Claim, Finish, NewTask, Usage
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

NOTHING = Usage(0, 0, 0, 0)
SESSION = len("To test.") + len("{}")


def count_bytes(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)


async def write(
    store: Store, at_address: MemoryAddress, value: object, caller: Caller = ALICE, **named: Any
) -> None:
    guard = allow if at_address.session_id else None
    await store.memory.write(at_address, caller, put(value, **named), now=NOON, guard=guard)


async def test_messages_sessions_and_memory_count_for_whom_they_are_of(store: Store) -> None:
    await add_session(store, "s")
    await add_session(store, "t", created_by="bob")
    await add_message(store, "s", content="☃" * 5, metadata={"a": 1}, recipients=("bob",))
    await add_message(store, "s", sender=BOB, content="hello")
    await write(store, address("k", session_id="s"), "x", BOB)
    await write(store, address("k", owner="alice"), "xy")

    message = count_bytes("☃" * 5, '{"a":1}', '["bob"]')
    memory = count_bytes("k", '"xy"', "{}")
    assert await store.agents.measure_usage("alice") == Usage(1, 1, 1, SESSION + message + memory)
    hello, shared = count_bytes("hello", "{}", "[]"), count_bytes("k", '"x"', "{}")
    assert await store.agents.measure_usage("bob") == Usage(1, 1, 1, SESSION + hello + shared)
    of_session = Usage(1, 2, 1, SESSION + message + hello + shared)
    assert await store.sessions.measure_usage("s") == of_session
    assert await store.sessions.measure_usage("none") == NOTHING
    assert await store.agents.measure_usage("nobody") == NOTHING


async def test_replaced_removed_and_expired_memory_counts_no_more(store: Store) -> None:
    await add_session(store, "s", created_by="root")
    shared = address("k", session_id="s")
    await write(store, shared, "x" * 100)
    await write(store, shared, "y", BOB)
    assert await store.agents.measure_usage("alice") == NOTHING
    assert await store.agents.measure_usage("bob") == Usage(0, 0, 1, count_bytes("k", '"y"', "{}"))
    await store.memory.delete(shared, lambda _: None, now=NOON, guard=allow, audit=make_audit())
    assert await store.agents.measure_usage("bob") == NOTHING
    await write(store, address("short", owner="bob"), 1, BOB, expires_at=at(1))
    assert (await store.agents.measure_usage("bob")).memory_entries == 1
    await store.maintenance.purge(expired_before=at(2), idempotency_before=NOON, audit_before=NOON)
    assert await store.agents.measure_usage("bob") == NOTHING


async def test_a_task_counts_for_its_creator_with_its_result(store: Store) -> None:
    await add_session(store, "s", created_by="root")
    new = NewTask("s", ALICE, "title", "b" * 1000, 0, None, (), {}, NOON)
    await store.tasks.add(new, allow)
    added = await store.agents.measure_usage("alice")
    assert added.bytes > 1000
    await store.tasks.claim(Claim("s", 1, BOB, timedelta(hours=1), NOON), allow)
    done = Finish("s", 1, BOB, 1, TaskOutcome.DONE, "r" * 500, at(1))
    await store.tasks.finish(done, allow)
    assert (await store.agents.measure_usage("alice")).bytes - added.bytes >= 500 - len("null")


async def test_nothing_of_a_deleted_session_counts(store: Store) -> None:
    for session_id, creator in (("s", "alice"), ("t", "root")):
        await add_session(store, session_id, created_by=creator)
        await add_message(store, session_id)
        await write(store, address("k", session_id=session_id), "x")
    kept = await store.sessions.measure_usage("t")
    await store.sessions.delete("s", allow, make_audit())
    assert await store.sessions.measure_usage("s") == NOTHING
    left = await store.agents.measure_usage("alice")
    assert (left.sessions, left.messages, left.memory_entries) == (0, 1, 1)
    assert await store.sessions.measure_usage("t") == kept
