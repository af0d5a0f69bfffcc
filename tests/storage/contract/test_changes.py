"""The change stream: what processes learn of each other's commits."""

from __future__ import annotations

import asyncio

from shared_context_server.models import AuditEntry, Event, EventKind
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from shared_context_server.storage.contract import ChangePosition
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


async def read_all(
    store: Store, after: ChangePosition, limit: int = 100
) -> tuple[list[Event], ChangePosition]:
    """Read the change stream to its end, in as many pieces as that takes."""
    events: list[Event] = []
    while True:
        changes = await store.changes.read(after, limit)
        assert changes.is_complete
        events += changes.events
        after = changes.position
        if len(changes.events) < limit:
            return events, after


async def test_nothing_is_on_the_tail_behind_its_end(store: Store) -> None:
    await add_session(store)
    await add_message(store)
    end = await store.changes.get_position()
    assert await read_all(store, end) == ([], end)


async def test_what_is_committed_is_on_the_tail_once(store: Store) -> None:
    start = await store.changes.get_position()
    await add_session(store)
    await add_message(store)
    await add_message(store)
    events, end = await read_all(store, start)
    assert sorted(events, key=lambda event: event.seq or 0) == [
        Event(EventKind.SESSION_CREATED, "session_1"),
        Event(EventKind.MESSAGE_ADDED, "session_1", seq=1),
        Event(EventKind.MESSAGE_ADDED, "session_1", seq=2),
    ]
    assert await read_all(store, end) == ([], end)
    assert await read_all(store, start) == (events, end)


async def test_the_tail_may_be_read_in_small_pieces(store: Store) -> None:
    await add_session(store)
    start = await store.changes.get_position()
    await asyncio.gather(*(add_message(store) for _ in range(25)))
    for number in range(7):
        await store.memory.write(address(f"k{number}"), ALICE, put(number), now=NOON, guard=None)
    events, _ = await read_all(store, start, limit=4)
    seqs = [event.seq for event in events if event.kind is EventKind.MESSAGE_ADDED]
    assert seqs == list(range(1, 26))
    assert [event.name for event in events if event.kind is EventKind.MEMORY_CHANGED] == [
        f"k{number}" for number in range(7)
    ]


async def test_a_write_that_is_undone_leaves_no_trace_on_the_tail(store: Store) -> None:
    await add_session(store)
    start = await store.changes.get_position()

    async def fail() -> None:
        try:
            await store.memory.write(
                address("k", session_id="missing"), ALICE, put(1), now=NOON, guard=allow
            )
        except Exception:  # noqa: BLE001 - whatever it was
            return

    await asyncio.gather(add_message(store), fail(), add_message(store))
    events, _ = await read_all(store, start)
    assert [event.seq for event in events] == [1, 2]


async def test_memory_is_on_the_tail_with_its_place(store: Store) -> None:
    await add_session(store)
    start = await store.changes.get_position()
    private = address("k", session_id="session_1", owner="alice")
    shared = address("k")
    await store.memory.write(private, ALICE, put(1), now=NOON, guard=allow)
    await store.memory.write(private, ALICE, put(2), now=NOON, guard=allow)
    await store.memory.write(shared, ALICE, put(3), now=NOON, guard=None)
    await store.memory.delete(shared, lambda entry: None, now=NOON, guard=None, audit=make_audit())
    events, _ = await read_all(store, start)
    of_private = Event(EventKind.MEMORY_CHANGED, "session_1", name="k", owner="alice")
    of_shared = Event(EventKind.MEMORY_CHANGED, name="k")
    assert events == [of_private, of_private, of_shared, of_shared]


async def test_memory_that_expired_is_on_the_tail_when_it_is_purged(store: Store) -> None:
    await store.memory.write(address("k"), ALICE, put(1, expires_at=at(1)), now=NOON, guard=None)
    start = await store.changes.get_position()
    await store.maintenance.purge(expired_before=at(2), idempotency_before=NOON, audit_before=NOON)
    events, _ = await read_all(store, start)
    assert events == [Event(EventKind.MEMORY_CHANGED, name="k")]


async def test_the_end_of_a_session_is_one_event(store: Store) -> None:
    await add_session(store)
    await add_message(store)
    await store.memory.write(
        address("k", session_id="session_1"), ALICE, put(1), now=NOON, guard=allow
    )
    start = await store.changes.get_position()
    audit = AuditEntry("session_closed", "alice", "session_1")
    await store.sessions.close("session_1", at(1), allow, audit)
    await store.sessions.close("session_1", at(2), allow, audit)
    await store.sessions.delete("session_1", allow, audit)
    events, end = await read_all(store, start)
    assert events == [
        Event(EventKind.SESSION_CLOSED, "session_1"),
        Event(EventKind.SESSION_DELETED, "session_1"),
    ]
    await add_session(store, "session_2")
    await add_message(store, "session_2")
    events, _ = await read_all(store, end)
    assert {event.session_id for event in events} == {"session_2"}


async def test_what_is_stored_nowhere_can_be_put_on_the_tail(store: Store) -> None:
    start = await store.changes.get_position()
    joined = Event(EventKind.AGENT_JOINED, agent_id="alice")
    left = Event(EventKind.AGENT_LEFT, "session_1", agent_id="bob")
    await store.changes.add([])
    await store.changes.add([joined, left])
    assert (await read_all(store, start))[0] == [joined, left]


async def test_another_store_on_the_same_database_sees_the_same_tail(
    store: Store, any_settings: Settings
) -> None:
    async with open_storage(any_settings) as other:
        start = await other.changes.get_position()
        assert start == await store.changes.get_position()
        await add_session(store)
        await add_message(store)
        events, end = await read_all(other, start)
        assert len(events) == 2
        assert end == await store.changes.get_position()


async def test_a_reader_is_told_that_it_has_come_too_late(store: Store) -> None:
    """However much a store keeps, it is not this much."""
    start = await store.changes.get_position()
    event = Event(EventKind.AGENT_JOINED, agent_id="alice")
    for _ in range(13):
        await store.changes.add([event] * 1000)
    middle = await store.changes.get_position()
    await store.changes.add([event])
    assert (await store.changes.read(start, 10)).is_complete
    removed = await store.maintenance.purge(
        expired_before=NOON, idempotency_before=NOON, audit_before=NOON
    )
    assert removed >= 1000
    late = await store.changes.read(start, 20_000)
    assert not late.is_complete
    assert late.position == await store.changes.get_position()
    assert (await read_all(store, middle))[0] == [event]
