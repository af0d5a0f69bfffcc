"""The contract of storage/contract: what a page may have in bytes."""

from __future__ import annotations

from datetime import datetime

import pytest

from shared_context_server.models import Agent, Message, Visibility
from shared_context_server.storage import Store
from shared_context_server.storage.contract import MessageQuery
from shared_context_server.storage.rules.pages import (
    DEFAULT_PAGE_BYTES,
    MAX_PAGE_BYTES,
    count_bytes,
    page_budget,
)
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    NOON,
    add_message,
    add_session,
    address,
    allow,
    at,
    make_caller,
    put,
)

LONG = "x" * 20_000
CONDITIONS = {
    "what an admin sees": (ADMIN, {}),
    "what others see": (ALICE, {}),
    "of a sender": (ADMIN, {"sender": "alice"}),
    "of a visibility": (ADMIN, {"visibility": Visibility.PUBLIC}),
    "of a time": (ALICE, {"start_time": at(-1)}),
    "of a parent": (ALICE, {"parent_message_id": 1}),
}


def weigh(messages: list[Message]) -> int:
    return sum(count_bytes(message.content) for message in messages)


def test_a_page_for_more_items_may_be_larger_up_to_a_bound() -> None:
    assert page_budget(1) == page_budget(50) == DEFAULT_PAGE_BYTES
    assert DEFAULT_PAGE_BYTES < page_budget(200) < MAX_PAGE_BYTES
    assert page_budget(1000) == page_budget(10**9) == MAX_PAGE_BYTES


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("is_forward", [True, False])
async def test_long_messages_come_in_pages_of_bounded_bytes(
    store: Store, condition: str, is_forward: bool
) -> None:
    caller, filters = CONDITIONS[condition]
    await add_session(store)
    first = await add_message(store, content="the first")
    assert first.id == 1
    for _ in range(12):
        await add_message(store, content=LONG, parent_message_id=first.id)
    await add_message(store, content="the last", parent_message_id=first.id)
    expected = list(range(2, 15)) if "parent_message_id" in filters else list(range(1, 15))
    seen: list[int] = []
    cursor = 0 if is_forward else None
    has_more = True
    while has_more:
        bound = {"after_seq": cursor} if is_forward else {"before_seq": cursor}
        query = MessageQuery(limit=20, **bound, **filters)  # type: ignore[arg-type]
        page = await store.messages.list_visible("session_1", caller, query, allow)
        assert 0 < weigh(page.messages) <= DEFAULT_PAGE_BYTES
        seqs = [message.seq for message in page.messages]
        assert seqs == sorted(seqs)
        seen = seen + seqs if is_forward else seqs + seen
        cursor = seqs[-1] if is_forward else seqs[0]
        has_more = page.has_more
    assert seen == expected


async def test_a_message_above_the_budget_comes_alone(store: Store) -> None:
    await add_session(store)
    for content in ("before", "水" * 100_000, "after"):
        await add_message(store, content=content)
    pages = []
    for after_seq in range(3):
        query = MessageQuery(limit=5, after_seq=after_seq)
        page = await store.messages.list_visible("session_1", BOB, query, allow)
        pages.append(([message.seq for message in page.messages], page.has_more))
    assert pages == [([1], True), ([2], True), ([3], False)]


async def test_metadata_and_recipients_count(store: Store) -> None:
    await add_session(store)
    for metadata, recipients in (({"k": LONG}, ()), ({}, ("r" * 20_000,))):
        for _ in range(2):
            await add_message(store, metadata=metadata, recipients=recipients)
    page = await store.messages.list_visible(
        "session_1", BOB, MessageQuery(limit=9, after_seq=0), allow
    )
    assert ([message.seq for message in page.messages], page.has_more) == ([1, 2, 3], True)


async def test_the_log_is_read_in_pieces_of_bounded_bytes(store: Store) -> None:
    await add_session(store)
    for _ in range(10):
        await add_message(store, content=LONG)
    seqs: list[int] = []
    while piece := await store.messages.read_log(
        "session_1", after_seq=seqs[-1] if seqs else 0, limit=40, guard=allow
    ):
        assert weigh(piece) <= DEFAULT_PAGE_BYTES
        seqs += [message.seq for message in piece]
    assert seqs == list(range(1, 11))


async def test_new_messages_of_all_sessions_come_in_bounded_bytes(store: Store) -> None:
    await add_session(store)
    for _ in range(10):
        await add_message(store, content=LONG)
    count, after_id, has_more = 0, 0, True
    while has_more:
        found = await store.messages.list_new(BOB, after_id=after_id, limit=40)
        assert weigh(found.messages) <= DEFAULT_PAGE_BYTES
        count += len(found.messages)
        after_id, has_more = found.next_after_id, found.has_more
    assert count == 10


async def test_sessions_with_much_metadata_come_in_bounded_bytes(store: Store) -> None:
    for index in range(10):
        await add_session(store, f"session_{index}", metadata={"k": LONG}, created_at=at(index))
    seen: list[str] = []
    before: tuple[datetime, str] | None = None
    has_more = True
    while has_more:
        page = await store.sessions.list_visible(
            BOB, status=None, created_by=None, limit=9, before=before
        )
        assert 1 <= len(page.items) <= 3
        seen += [summary.session.id for summary in page.items]
        before = (page.items[-1].session.created_at, page.items[-1].session.id)
        has_more = page.has_more
    assert seen == [f"session_{index}" for index in reversed(range(10))]


async def test_memory_with_much_metadata_is_listed_in_bounded_bytes(store: Store) -> None:
    for index in range(10):
        await store.memory.write(
            address(f"k{index}"), ALICE, put(1, note=LONG), now=NOON, guard=None
        )
    seen: list[str] = []
    has_more = True
    while has_more:
        page = await store.memory.list_entries(
            session_id=None,
            owner=None,
            prefix="k",
            limit=9,
            after_key=seen[-1] if seen else None,
            now=NOON,
            guard=None,
        )
        assert 1 <= len(page.items) <= 3
        seen += [entry.address.key for entry in page.items]
        has_more = page.has_more
    assert seen == [f"k{index}" for index in range(10)]


async def test_agents_come_in_pages(store: Store) -> None:
    await store.agents.touch([Agent(f"a{n:02}", "t", at(n // 3), at(n // 3)) for n in range(10)])
    await add_session(store, created_by="a00", invited=("a07",))
    await add_message(store, sender=make_caller("a03"))
    for session_id, guard, expected in (
        (None, None, [f"a{n:02}" for n in reversed(range(10))]),
        ("session_1", allow, ["a07", "a03", "a00"]),
    ):
        seen: list[str] = []
        before: tuple[datetime, str] | None = None
        while page := await store.agents.list_seen(
            session_id, ALICE, guard, limit=2, before=before
        ):
            assert len(page) <= 2
            seen += [agent.agent_id for agent in page]
            before = (page[-1].last_seen, page[-1].agent_id)
        assert seen == expected


async def test_leases_come_in_pages(store: Store) -> None:
    for name in "bca":
        await store.leases.acquire(None, name, ALICE, ttl=at(9) - at(0), now=NOON, guard=None)
    seen: list[str] = []
    while page := await store.leases.list_held(
        None, limit=2, after_name=seen[-1] if seen else "", now=NOON, guard=None
    ):
        seen += [lease.name for lease in page]
    assert seen == ["a", "b", "c"]


async def test_participants_are_the_first_of_many(store: Store) -> None:
    await add_session(store, invited=("bob", "carol"))
    for name in ("dave", "erin"):
        await add_message(store, sender=make_caller(name))
    for limit, expected in ((2, ["alice", "bob"]), (4, ["alice", "bob", "carol", "dave"])):
        assert (
            await store.sessions.list_participants("session_1", ALICE, allow, limit=limit)
            == expected
        )
