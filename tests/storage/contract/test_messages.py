"""The contract of storage/contract: appending to the log and reading it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from shared_context_server.errors import (
    Conflict,
    MessageNotFound,
    PermissionDenied,
    SessionClosed,
    SessionNotFound,
)
from shared_context_server.models import Access, Ack, Message, Session, Visibility
from shared_context_server.storage import Store
from shared_context_server.storage.contract import (
    Acknowledgement,
    AddedMessage,
    MessageQuery,
    SenderCount,
)
from tests.storage.builders import (
    ADMIN,
    ALICE,
    ALL,
    BOB,
    CAROL,
    NOON,
    Refusal,
    add_message,
    add_session,
    allow,
    at,
    list_seqs,
    make_audit,
    make_caller,
    new_message,
    refuse,
    writer_guard,
)

# Appending


async def test_a_message_comes_back_as_it_was_added(store: Store) -> None:
    await add_session(store)
    parent = await add_message(store)
    added = await add_message(
        store,
        sender=replace(BOB, instance="one"),
        content="Grüße 🚀\x01 ' \" \\",
        visibility=Visibility.PRIVATE,
        recipients=("carol", "alice"),
        metadata={"z": [1, 2.5, None, {"deep": True}], "a": "x"},
        parent_message_id=parent.id,
        created_at=at(1.5),
        ack=Ack.REQUIRED,
    )
    assert added == AddedMessage(id=added.id, seq=2, timestamp=at(1.5), duplicate=False)
    message = await store.messages.get("session_1", added.id, CAROL, allow)
    assert message == Message(
        id=added.id,
        session_id="session_1",
        seq=2,
        sender="bob",
        sender_type="claude",
        content="Grüße 🚀\x01 ' \" \\",
        visibility=Visibility.PRIVATE,
        recipients=["carol", "alice"],
        metadata={"z": [1, 2.5, None, {"deep": True}], "a": "x"},
        parent_message_id=parent.id,
        timestamp=at(1.5),
        sender_instance="one",
        ack=Ack.REQUIRED,
    )
    assert list(message.metadata) == ["z", "a"]
    page = await store.messages.list_visible("session_1", CAROL, ALL, allow)
    assert page.messages[-1] == message


async def test_an_agent_acknowledges_a_message_once_at_a_time_or_later(store: Store) -> None:
    await add_session(store)
    asking = await add_message(store, ack=Ack.REQUIRED)
    other = await add_message(store, ack=Ack.REQUIRED)
    given = {"ack": Ack.GIVEN, "parent_message_id": asking.id}
    first = await asyncio.gather(
        *(add_message(store, sender=BOB, created_at=at(2), **given) for _ in range(5))
    )
    assert len({(one.id, one.seq) for one in first}) == 1
    assert sorted(one.duplicate for one in first) == [False, True, True, True, True]
    await add_message(store, sender=CAROL, created_at=at(3), **given)
    await add_message(store, sender=BOB, ack=Ack.GIVEN, parent_message_id=other.id)
    await add_message(store, sender=ALICE, parent_message_id=asking.id)  # a plain reply
    await store.sessions.close("session_1", NOON, allow, make_audit())
    again = await add_message(store, sender=BOB, guard=refuse, created_at=at(9), **given)
    assert (again.id, again.timestamp, again.duplicate) == (first[0].id, at(2), True)
    found = await store.messages.list_acknowledgements("session_1", asking.id, limit=5)
    assert found == [Acknowledgement("bob", at(2)), Acknowledgement("carol", at(3))]
    one = await store.messages.list_acknowledgements("session_1", asking.id, limit=1)
    assert one == found[:1]


async def test_each_session_counts_from_one(store: Store) -> None:
    for name in ("session_1", "session_2"):
        await add_session(store, name)
    seqs = [(await add_message(store, f"session_{1 + index % 2}")).seq for index in range(6)]
    assert seqs == [1, 1, 2, 2, 3, 3]


async def test_concurrent_writers_get_gapless_seqs_in_commit_order(store: Store) -> None:
    await add_session(store)
    added = await asyncio.gather(*(add_message(store, content=str(index)) for index in range(500)))
    assert sorted(message.seq for message in added) == list(range(1, 501))
    log = await store.messages.read_log("session_1", after_seq=0, limit=1000, guard=allow)
    assert [message.seq for message in log] == list(range(1, 501))
    by_content = {message.content: message.seq for message in log}
    assert all(by_content[str(index)] == message.seq for index, message in enumerate(added))


async def test_a_reader_by_cursor_misses_nothing_under_concurrent_writers(
    store: Store,
) -> None:
    await add_session(store)
    writers = asyncio.gather(*(add_message(store) for _ in range(400)))
    seen: list[int] = []
    async with asyncio.timeout(30):
        while len(seen) < 400:
            query = MessageQuery(limit=7, after_seq=seen[-1] if seen else 0)
            page = await store.messages.list_visible("session_1", ALICE, query, allow)
            seen += [message.seq for message in page.messages]
    await writers
    assert seen == list(range(1, 401))


async def test_a_refused_message_takes_no_seq(store: Store) -> None:
    await add_session(store)
    outcomes = await asyncio.gather(
        *(add_message(store, guard=refuse if index % 3 else allow) for index in range(30)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Refusal) for outcome in outcomes] == [
        index % 3 != 0 for index in range(30)
    ]
    assert await list_seqs(store, ALICE) == list(range(1, 11))


async def test_the_guard_sees_what_earlier_writes_made_of_the_session(store: Store) -> None:
    await add_session(store)
    seen: list[Session] = []
    await add_message(store, guard=seen.append)
    await store.sessions.close("session_1", NOON, allow, make_audit())
    await add_message(store, guard=seen.append)
    states = [(session.status.value, session.last_seq) for session in seen]
    assert states[0] == ("active", 0)
    assert states[-1] == ("closed", 1)


# Parents


@pytest.mark.parametrize("parent", [0, -1, 10**6, 2**63, -(10**30)])
async def test_a_missing_parent_is_named(store: Store, parent: int) -> None:
    await add_session(store)
    await add_message(store)
    with pytest.raises(MessageNotFound) as caught:
        await add_message(store, parent_message_id=parent)
    assert caught.value.details["field"] == "parent_message_id"
    assert await list_seqs(store, ADMIN) == [1]


async def test_a_parent_must_be_of_this_session_and_visible_to_the_sender(
    store: Store,
) -> None:
    for name in ("session_1", "session_2"):
        await add_session(store, name)
    elsewhere = await add_message(store, "session_2")
    hidden = await add_message(store, visibility=Visibility.PRIVATE, recipients=("bob",))
    for parent in (elsewhere.id, hidden.id):
        with pytest.raises(MessageNotFound):
            await add_message(store, sender=CAROL, parent_message_id=parent)
    reply = await add_message(store, sender=BOB, parent_message_id=hidden.id)
    assert reply.seq == 2
    assert (await add_message(store, sender=ADMIN, parent_message_id=hidden.id)).seq == 3


async def test_the_guard_is_asked_before_the_parent_is_sought(store: Store) -> None:
    await add_session(store)
    with pytest.raises(Refusal):
        await add_message(store, parent_message_id=99, guard=refuse)


# Idempotency


async def test_a_repeated_message_is_written_once_and_answered_the_same(store: Store) -> None:
    await add_session(store)
    first = await add_message(store, idempotency_key="k", fingerprint="f", created_at=at(1))
    await add_message(store)
    again = await add_message(store, idempotency_key="k", fingerprint="f", created_at=at(2))
    assert again == AddedMessage(id=first.id, seq=1, timestamp=at(1), duplicate=True)
    assert await list_seqs(store, ALICE) == [1, 2]


async def test_concurrent_repetitions_write_once(store: Store) -> None:
    await add_session(store)
    outcomes = await asyncio.gather(
        *(add_message(store, idempotency_key="k", fingerprint="f") for _ in range(50))
    )
    assert {outcome.id for outcome in outcomes} == {outcomes[0].id}
    assert sorted(outcome.duplicate for outcome in outcomes) == [False] + [True] * 49
    assert await list_seqs(store, ALICE) == [1]


async def test_idempotency_keys_are_of_one_sender_in_one_session(store: Store) -> None:
    for name in ("session_1", "session_2"):
        await add_session(store, name)
    for sender in (ALICE, BOB):
        for name in ("session_1", "session_2"):
            added = await add_message(store, name, sender=sender, idempotency_key="k")
            assert not added.duplicate


async def test_an_idempotency_key_of_another_message_conflicts(store: Store) -> None:
    await add_session(store)
    await add_message(store, idempotency_key="k", fingerprint="f")
    with pytest.raises(Conflict) as caught:
        await add_message(store, idempotency_key="k", fingerprint="g")
    assert caught.value.details["field"] == "idempotency_key"
    assert await list_seqs(store, ALICE) == [1]


async def test_a_refused_message_does_not_use_up_its_idempotency_key(store: Store) -> None:
    await add_session(store)
    with pytest.raises(Refusal):
        await add_message(store, idempotency_key="k", guard=refuse)
    with pytest.raises(MessageNotFound):
        await add_message(store, idempotency_key="k", parent_message_id=9)
    assert not (await add_message(store, idempotency_key="k")).duplicate


async def test_a_repetition_is_answered_after_the_session_was_closed(store: Store) -> None:
    await add_session(store)
    first = await add_message(store, idempotency_key="k", guard=writer_guard(ALICE))
    await store.sessions.close("session_1", NOON, allow, make_audit())
    again = await add_message(store, idempotency_key="k", guard=writer_guard(ALICE))
    assert (again.id, again.duplicate) == (first.id, True)
    with pytest.raises(SessionClosed):
        await add_message(store, idempotency_key="other", guard=writer_guard(ALICE))


async def test_a_repetition_tells_nothing_to_who_may_not_see_the_session(
    store: Store,
) -> None:
    await add_session(store, access=Access.INVITED, created_by="bob")
    await add_message(store, idempotency_key="k")

    def deny(session: Session) -> None:
        raise PermissionDenied("no")

    for guard, error in ((writer_guard(ALICE), SessionNotFound), (deny, PermissionDenied)):
        for fingerprint in ("", "another"):
            with pytest.raises(error):
                await add_message(store, idempotency_key="k", fingerprint=fingerprint, guard=guard)


# Getting one


async def test_a_message_is_found_only_in_its_session_by_who_sees_it(store: Store) -> None:
    for name in ("session_1", "session_2"):
        await add_session(store, name)
    public = await add_message(store)
    secret = await add_message(store, visibility=Visibility.ADMIN_ONLY)
    assert (await store.messages.get("session_1", public.id, CAROL, allow)).seq == 1
    assert (await store.messages.get("session_1", secret.id, ADMIN, allow)).seq == 2
    for session_id, message_id in (
        ("session_2", public.id),
        ("session_1", secret.id),
        ("session_1", 0),
        ("session_1", 2**64),
    ):
        with pytest.raises(MessageNotFound) as caught:
            await store.messages.get(session_id, message_id, ALICE, allow)
        assert caught.value.details["message_id"] == message_id


# Listing


async def fill(store: Store, count: int = 10) -> None:
    await add_session(store)
    for _ in range(count):
        await add_message(store)


async def test_without_a_cursor_the_newest_come_in_log_order(store: Store) -> None:
    await fill(store)
    assert await list_seqs(store, ALICE, limit=3) == [8, 9, 10]
    assert await list_seqs(store, ALICE, limit=3, offset=2) == [6, 7, 8]
    assert await list_seqs(store, ALICE, limit=3, offset=9) == [1]
    assert await list_seqs(store, ALICE, limit=3, offset=10) == []
    assert await list_seqs(store, ALICE, limit=3, before_seq=5) == [2, 3, 4]
    assert await list_seqs(store, ALICE, limit=3, before_seq=5, offset=2) == [1, 2]


async def test_with_a_cursor_the_oldest_behind_it_come(store: Store) -> None:
    await fill(store)
    assert await list_seqs(store, ALICE, limit=3, after_seq=0) == [1, 2, 3]
    assert await list_seqs(store, ALICE, limit=3, after_seq=4, offset=1) == [6, 7, 8]
    assert await list_seqs(store, ALICE, limit=9, after_seq=4, before_seq=8) == [5, 6, 7]
    assert await list_seqs(store, ALICE, limit=3, after_seq=10) == []


@pytest.mark.parametrize("huge", [2**63, 10**40])
async def test_bounds_of_any_size_are_bounds(store: Store, huge: int) -> None:
    await fill(store, 2)
    assert await list_seqs(store, ALICE, after_seq=huge) == []
    assert await list_seqs(store, ALICE, after_seq=-huge) == [1, 2]
    assert await list_seqs(store, ALICE, before_seq=huge) == [1, 2]
    assert await list_seqs(store, ALICE, offset=huge) == []
    assert await list_seqs(store, ALICE, parent_message_id=huge) == []
    assert await store.messages.read_log("session_1", after_seq=huge, limit=1, guard=allow) == []


async def test_has_more_looks_the_way_the_page_goes(store: Store) -> None:
    await fill(store)
    expectations: list[tuple[dict[str, Any], bool]] = [
        ({"limit": 9}, True),
        ({"limit": 10}, False),
        ({"limit": 5, "offset": 5}, False),
        ({"limit": 4, "offset": 5}, True),
        ({"limit": 5, "after_seq": 4}, True),
        ({"limit": 6, "after_seq": 4}, False),
        ({"limit": 2, "before_seq": 4}, True),
        ({"limit": 3, "before_seq": 4}, False),
    ]
    for query, has_more in expectations:
        page = await store.messages.list_visible("session_1", ALICE, MessageQuery(**query), allow)
        assert page.has_more is has_more, query
        assert (page.total_count, page.last_seq) == (10, 10), query


async def test_filters_must_all_hold(store: Store) -> None:
    await add_session(store)
    root = await add_message(store, created_at=at(1))
    await add_message(store, created_at=at(2), sender=BOB, parent_message_id=root.id)
    await add_message(store, created_at=at(3), parent_message_id=root.id)
    await add_message(
        store,
        created_at=at(4),
        sender=BOB,
        visibility=Visibility.PRIVATE,
        recipients=("alice",),
        parent_message_id=root.id,
    )
    for query, seqs in (
        ({"sender": "bob"}, [2, 4]),
        ({"sender": "nobody"}, []),
        ({"visibility": Visibility.PRIVATE}, [4]),
        ({"parent_message_id": root.id}, [2, 3, 4]),
        ({"parent_message_id": root.id, "sender": "bob"}, [2, 4]),
        ({"parent_message_id": root.id, "visibility": Visibility.PUBLIC}, [2, 3]),
        ({"sender": "bob", "visibility": Visibility.PUBLIC}, [2]),
        ({"start_time": at(2), "end_time": at(3)}, [2, 3]),
        ({"start_time": at(4)}, [4]),
        ({"end_time": at(1)}, [1]),
        ({"sender": "bob", "end_time": at(3)}, [2]),
    ):
        for caller in (ALICE, ADMIN):
            page = await store.messages.list_visible(
                "session_1", caller, MessageQuery(limit=10, **query), allow
            )
            assert [message.seq for message in page.messages] == seqs, query
            assert page.total_count == len(seqs), query


async def test_a_page_and_its_counts_are_of_one_snapshot(store: Store) -> None:
    await add_session(store)
    writers = asyncio.gather(*(add_message(store) for _ in range(300)))
    async with asyncio.timeout(30):
        while not writers.done():
            page = await store.messages.list_visible("session_1", ALICE, ALL, allow)
            seqs = [message.seq for message in page.messages]
            assert seqs == list(range(1, page.last_seq + 1))
            assert page.total_count == page.last_seq
    await writers


async def test_the_log_is_read_as_it_is(store: Store) -> None:
    await add_session(store)
    for visibility in Visibility:
        await add_message(store, visibility=visibility)
    log = await store.messages.read_log("session_1", after_seq=1, limit=2, guard=allow)
    assert [(message.seq, message.visibility) for message in log] == [
        (2, Visibility.PRIVATE),
        (3, Visibility.AGENT_ONLY),
    ]
    with pytest.raises(Refusal):
        await store.messages.read_log("session_1", after_seq=0, limit=2, guard=refuse)


async def test_senders_are_counted_behind_a_seq_most_first(store: Store) -> None:
    await add_session(store)
    zoe, dan = make_caller("zoe"), make_caller("dan", "gpt")
    for sender in (ALICE, zoe, dan, zoe, dan):
        await add_message(store, sender=sender)
    await add_message(store, sender=dan, visibility=Visibility.ADMIN_ONLY)
    assert await store.messages.count_by_sender("session_1", BOB, after_seq=1, guard=allow) == [
        SenderCount("dan", 2),
        SenderCount("zoe", 2),
    ]
    assert await store.messages.count_by_sender("session_1", ADMIN, after_seq=0, guard=allow) == [
        SenderCount("dan", 3),
        SenderCount("zoe", 2),
        SenderCount("alice", 1),
    ]


# Cancellation


async def test_a_cancelled_write_happens_wholly_or_not_at_all(store: Store) -> None:
    await add_session(store)
    shuffled = random.Random(1)  # any order; fixed, so that a failure repeats
    tasks = [
        asyncio.create_task(store.messages.append(new_message(content=str(index)), allow))
        for index in range(300)
    ]
    for task in shuffled.sample(tasks, 150):
        await asyncio.sleep(0)
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    page = await store.messages.list_visible("session_1", BOB, ALL, allow)
    log = await store.messages.read_log("session_1", after_seq=0, limit=1000, guard=allow)
    assert [message.seq for message in log] == list(range(1, len(log) + 1))
    written = {message.content for message in log}
    assert len(written) == len(log)
    for index, outcome in enumerate(outcomes):
        assert isinstance(outcome, asyncio.CancelledError) or str(index) in written
    # What was cancelled may still be happening, between these two.
    assert len(page.messages) == page.total_count <= len(log)
