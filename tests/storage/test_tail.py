"""The tail: what processes learn of each other's commits."""

from __future__ import annotations

import asyncio

from shared_context_server.models import AuditEntry, Event, EventKind
from shared_context_server.settings import Settings
from shared_context_server.storage import Storage, open_storage
from shared_context_server.storage.base import TailPosition
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
    storage: Storage, after: TailPosition, limit: int = 100
) -> tuple[list[Event], TailPosition]:
    """The tail to its end, in as many pieces as that takes."""
    events: list[Event] = []
    while True:
        changes = await storage.read_changes(after, limit)
        assert changes.is_complete
        events += changes.events
        after = changes.position
        if len(changes.events) < limit:
            return events, after


async def test_nothing_is_on_the_tail_behind_its_end(storage: Storage) -> None:
    await add_session(storage)
    await add_message(storage)
    end = await storage.get_tail_position()
    assert await read_all(storage, end) == ([], end)


async def test_what_is_committed_is_on_the_tail_once(storage: Storage) -> None:
    start = await storage.get_tail_position()
    await add_session(storage)
    await add_message(storage)
    await add_message(storage)
    events, end = await read_all(storage, start)
    assert sorted(events, key=lambda event: event.seq or 0) == [
        Event(EventKind.SESSION_CREATED, "session_1"),
        Event(EventKind.MESSAGE_ADDED, "session_1", seq=1),
        Event(EventKind.MESSAGE_ADDED, "session_1", seq=2),
    ]
    assert await read_all(storage, end) == ([], end)
    assert await read_all(storage, start) == (events, end)


async def test_the_tail_may_be_read_in_small_pieces(storage: Storage) -> None:
    await add_session(storage)
    start = await storage.get_tail_position()
    await asyncio.gather(*(add_message(storage) for _ in range(25)))
    for number in range(7):
        await storage.write_memory(address(f"k{number}"), ALICE, put(number), now=NOON, guard=None)
    events, _ = await read_all(storage, start, limit=4)
    seqs = [event.seq for event in events if event.kind is EventKind.MESSAGE_ADDED]
    assert seqs == list(range(1, 26))
    assert [event.name for event in events if event.kind is EventKind.MEMORY_CHANGED] == [
        f"k{number}" for number in range(7)
    ]


async def test_a_write_that_is_undone_leaves_no_trace_on_the_tail(storage: Storage) -> None:
    await add_session(storage)
    start = await storage.get_tail_position()

    async def fail() -> None:
        try:
            await storage.write_memory(
                address("k", session_id="missing"), ALICE, put(1), now=NOON, guard=allow
            )
        except Exception:  # noqa: BLE001 - whatever it was
            return

    await asyncio.gather(add_message(storage), fail(), add_message(storage))
    events, _ = await read_all(storage, start)
    assert [event.seq for event in events] == [1, 2]


async def test_memory_is_on_the_tail_with_its_place(storage: Storage) -> None:
    await add_session(storage)
    start = await storage.get_tail_position()
    private = address("k", session_id="session_1", owner="alice")
    shared = address("k")
    await storage.write_memory(private, ALICE, put(1), now=NOON, guard=allow)
    await storage.write_memory(private, ALICE, put(2), now=NOON, guard=allow)
    await storage.write_memory(shared, ALICE, put(3), now=NOON, guard=None)
    await storage.delete_memory(
        shared, lambda entry: None, now=NOON, guard=None, audit=make_audit()
    )
    events, _ = await read_all(storage, start)
    of_private = Event(EventKind.MEMORY_CHANGED, "session_1", name="k", owner="alice")
    of_shared = Event(EventKind.MEMORY_CHANGED, name="k")
    assert events == [of_private, of_private, of_shared, of_shared]


async def test_memory_that_expired_is_on_the_tail_when_it_is_purged(storage: Storage) -> None:
    await storage.write_memory(address("k"), ALICE, put(1, expires_at=at(1)), now=NOON, guard=None)
    start = await storage.get_tail_position()
    await storage.purge(expired_before=at(2), idempotency_before=NOON, audit_before=NOON)
    events, _ = await read_all(storage, start)
    assert events == [Event(EventKind.MEMORY_CHANGED, name="k")]


async def test_the_end_of_a_session_is_one_event(storage: Storage) -> None:
    await add_session(storage)
    await add_message(storage)
    await storage.write_memory(
        address("k", session_id="session_1"), ALICE, put(1), now=NOON, guard=allow
    )
    start = await storage.get_tail_position()
    audit = AuditEntry("session_closed", "alice", "session_1")
    await storage.close_session("session_1", at(1), allow, audit)
    await storage.close_session("session_1", at(2), allow, audit)
    await storage.delete_session("session_1", allow, audit)
    events, end = await read_all(storage, start)
    assert events == [
        Event(EventKind.SESSION_CLOSED, "session_1"),
        Event(EventKind.SESSION_DELETED, "session_1"),
    ]
    await add_session(storage, "session_2")
    await add_message(storage, "session_2")
    events, _ = await read_all(storage, end)
    assert {event.session_id for event in events} == {"session_2"}


async def test_what_is_stored_nowhere_can_be_put_on_the_tail(storage: Storage) -> None:
    start = await storage.get_tail_position()
    joined = Event(EventKind.AGENT_JOINED, agent_id="alice")
    left = Event(EventKind.AGENT_LEFT, "session_1", agent_id="bob")
    await storage.add_changes([])
    await storage.add_changes([joined, left])
    assert (await read_all(storage, start))[0] == [joined, left]


async def test_another_store_on_the_same_database_sees_the_same_tail(
    storage: Storage, any_settings: Settings
) -> None:
    async with open_storage(any_settings) as other:
        start = await other.get_tail_position()
        assert start == await storage.get_tail_position()
        await add_session(storage)
        await add_message(storage)
        events, end = await read_all(other, start)
        assert len(events) == 2
        assert end == await storage.get_tail_position()


async def test_a_reader_is_told_that_it_has_come_too_late(storage: Storage) -> None:
    """However much a store keeps, it is not this much."""
    start = await storage.get_tail_position()
    event = Event(EventKind.AGENT_JOINED, agent_id="alice")
    for _ in range(13):
        await storage.add_changes([event] * 1000)
    middle = await storage.get_tail_position()
    await storage.add_changes([event])
    assert (await storage.read_changes(start, 10)).is_complete
    removed = await storage.purge(expired_before=NOON, idempotency_before=NOON, audit_before=NOON)
    assert removed >= 1000
    late = await storage.read_changes(start, 20_000)
    assert not late.is_complete
    assert late.position == await storage.get_tail_position()
    assert (await read_all(storage, middle))[0] == [event]
