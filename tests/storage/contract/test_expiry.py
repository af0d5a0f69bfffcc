"""Message retention: old messages at the beginning of a session go, and everything that counts or reads
messages goes on from the session's first_seq."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument, MessageNotFound
from shared_context_server.models import (
    Access,
    Ack,
    AuditEntry,
    Caller,
    Event,
    EventKind,
    Message,
    TaskOutcome,
    Visibility,
)
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from shared_context_server.storage.contract import (
    AuditQuery,
    Claim,
    ExpiryStep,
    Finish,
    MessageQuery,
    NewTask,
    Removal,
    UnreadIn,
)
from shared_context_server.storage.rules import expiry as rules
from shared_context_server.storage.rules.audience import audience_keys
from shared_context_server.storage.rules.pages import TIME_RANGE_SEQS
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    NOON,
    add_message,
    add_session,
    allow,
    at,
    list_seqs,
    make_audit,
    read_whole_log,
)

DAY = timedelta(days=1)
FOREVER = at(1e9)


def tell(first_seq: int, last_seq: int) -> AuditEntry:
    return make_audit("messages_expired", details={"first": first_seq, "last": last_seq})


async def expire(store: Store, before: datetime, session_id: str = "session_1") -> int:
    """Remove all that is older in a session; return the number."""
    step = await store.expiry.remove_some(session_id, before, tell)
    removed = step.removed
    while step.has_more:
        step = await store.expiry.remove_some(session_id, before, None)
        removed += step.removed
    return removed


async def list_announced(store: Store) -> list[tuple[object, object]]:
    found = await store.audit.list_newest(AuditQuery(limit=99, event_type="messages_expired"))
    return [(entry.details["first"], entry.details["last"]) for entry in reversed(found)]


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "STEP_ROWS", 3)


async def add_mixed(store: Store, numbers: range) -> None:
    """Messages of all kinds, a second apart."""
    for number in numbers:
        await add_message(
            store,
            sender=(ALICE, BOB, CAROL)[number % 3],
            visibility=tuple(Visibility)[number % 4],
            recipients=(("bob",), ("alice", "carol"), ())[number % 3],
            content=f"text {number}",
            created_at=at(number),
        )


async def require_consistent(store: Store, log: list[Message], cursor: int) -> None:
    """What each caller reads and counts is what the policy lets them see of these messages."""
    session = await store.sessions.get("session_1")
    middle = at(20)
    for caller in (ALICE, BOB, CAROL, ADMIN):
        seen = [message for message in log if policy.can_see_message(caller, message)]
        for after_seq in (None, 0, cursor, session.last_seq):
            query = MessageQuery(limit=1000, after_seq=after_seq)
            page = await store.messages.list_visible("session_1", caller, query, allow)
            assert list(page.messages) == [m for m in seen if m.seq > (after_seq or 0)]
            assert (page.total_count, page.has_more) == (len(seen), False)
            assert (page.first_seq, page.last_seq) == (session.first_seq, session.last_seq)
        for query, matches in (
            (MessageQuery(limit=1000, sender="bob"), lambda m: m.sender == "bob"),
            (MessageQuery(limit=1000, start_time=middle), lambda m: m.timestamp >= middle),
            (MessageQuery(limit=1000, end_time=middle), lambda m: m.timestamp <= middle),
            (
                MessageQuery(limit=1000, visibility=Visibility.PUBLIC),
                lambda m: m.visibility is Visibility.PUBLIC,
            ),
        ):
            page = await store.messages.list_visible("session_1", caller, query, allow)
            assert list(page.messages) == [m for m in seen if matches(m)]
            assert page.total_count == len(page.messages)
        newest = await store.messages.list_visible(
            "session_1", caller, MessageQuery(limit=2, offset=1), allow
        )
        assert list(newest.messages) == seen[-3:-1]
        unread = [m for m in seen if m.seq > cursor and m.sender != caller.agent_id]
        summary = await store.sessions.summarize("session_1", caller, allow)
        assert (summary.message_count, summary.unread) == (len(seen), len(unread))
        listed = await store.sessions.list_visible(caller, status=None, created_by=None, limit=9)
        assert listed.items == [summary]
        counts = await store.messages.count_by_sender("session_1", caller, after_seq=0, guard=allow)
        senders = [message.sender for message in seen]
        assert {one.sender: one.count for one in counts} == {s: senders.count(s) for s in senders}
        if not caller.is_admin:
            names = tuple(name for name in audience_keys(caller).values() if name)
            key = "session_1", caller.agent_id
            assert await store.fleet.count_unread([UnreadIn(*key, names)]) == {key: len(unread)}
    assert await read_whole_log(store) == log


async def test_what_is_left_is_read_and_counted_as_a_log_that_begins_later(
    store: Store, small_steps: None
) -> None:
    await add_session(store)
    await add_mixed(store, range(24))
    for caller in (ALICE, BOB, CAROL, ADMIN):
        await store.sessions.set_cursor("session_1", caller, 8, allow)
    log = await read_whole_log(store)
    last_activity = {}
    for caller in (ALICE, BOB, CAROL, ADMIN):
        summary = await store.sessions.summarize("session_1", caller, allow)
        last_activity[caller] = summary.last_activity
    for first_seq in (1, 5, 9, 17, 25):
        removed = len([m for m in log if m.seq < first_seq])
        assert await expire(store, at(first_seq - 1)) == removed
        log = log[removed:]
        assert (await store.sessions.get("session_1")).first_seq == first_seq
        await require_consistent(store, log, 8)
    for caller, before in last_activity.items():
        summary = await store.sessions.summarize("session_1", caller, allow)
        assert summary.last_activity == before
    await add_mixed(store, range(24, 30))
    log = await read_whole_log(store)
    assert [message.seq for message in log] == list(range(25, 31))
    await require_consistent(store, log, 8)
    assert await expire(store, at(26)) == 2
    await require_consistent(store, log[2:], 8)
    assert await list_announced(store) == [(1, 4), (5, 8), (9, 16), (17, 24), (25, 26)]


async def test_only_a_prefix_goes_however_old_what_follows_is(store: Store) -> None:
    await add_session(store)
    for seconds in (5, 1, 9, 1):
        await add_message(store, created_at=at(seconds))
    assert await expire(store, at(6)) == 2
    assert await list_seqs(store, ALICE) == [3, 4]
    assert await expire(store, at(6)) == 0
    assert await list_announced(store) == [(1, 2)]


async def test_all_messages_of_a_long_log_go_in_steps_up_to_the_first_that_is_not_old(
    store: Store,
) -> None:
    """Whole rows of time_ranges are passed over to find it, and go with their messages."""
    await add_session(store)
    size = TIME_RANGE_SEQS + 50
    for number in range(size):
        await add_message(store, created_at=at(number))
    for kept in (TIME_RANGE_SEQS + 20, TIME_RANGE_SEQS - 20):
        first = size - kept
        await expire(store, at(first))
        page = await store.messages.list_visible(
            "session_1", ALICE, MessageQuery(limit=1, start_time=at(3)), allow
        )
        assert (page.first_seq, page.total_count) == (first + 1, kept)
    assert await expire(store, FOREVER) == TIME_RANGE_SEQS - 20
    assert await list_seqs(store, ALICE) == []
    assert (await add_message(store, created_at=at(size))).seq == size + 1
    page = await store.messages.list_visible(
        "session_1", ADMIN, MessageQuery(limit=1, start_time=at(3)), allow
    )
    assert (page.first_seq, page.total_count) == (size + 1, 1)


@pytest.mark.parametrize("rows, size, keys", [(2, 9_999, 99), (99, 250, 99), (99, 9_999, 4)])
async def test_a_step_is_bounded_in_messages_in_bytes_and_in_keys(
    store: Store, monkeypatch: pytest.MonkeyPatch, rows: int, size: int, keys: int
) -> None:
    monkeypatch.setattr(rules, "STEP_ROWS", rows)
    monkeypatch.setattr(rules, "STEP_BYTES", size)
    monkeypatch.setattr(rules, "STEP_KEYS", keys)
    await add_session(store)
    for sender in (ALICE, BOB, CAROL, ALICE):
        await add_message(store, sender=sender, content="x" * 100)
    for audit, has_more in ((tell, True), (None, False)):
        step = await store.expiry.remove_some("session_1", FOREVER, audit)
        assert step == ExpiryStep(2, has_more=has_more)
    assert await list_announced(store) == [(1, 4)]


async def test_processes_at_once_and_one_that_was_killed_remove_and_record_each_message_once(
    store: Store, any_settings: Settings, small_steps: None
) -> None:
    await add_session(store)
    await add_mixed(store, range(20))
    async with open_storage(any_settings) as other:
        assert (await add_message(other, created_at=at(20))).seq == 21
        first = await store.expiry.remove_some("session_1", at(10), tell)  # and then it is killed
        assert (first.removed, first.has_more) == (3, True)
        found = await other.expiry.examine(at(15), limit=9)
        assert found.idle == ["session_1"]
        removed = await asyncio.gather(*(expire(one, at(15)) for one in (store, other, store)))
        assert sum(removed) == 12
        assert await list_announced(store) == [(1, 10), (11, 15)]
        assert await list_seqs(other, ADMIN) == [16, 17, 18, 19, 20, 21]
        await expire(store, FOREVER)
        # It knows the session from before.
        assert (await add_message(other, created_at=FOREVER)).seq == 22
        assert await list_seqs(store, ADMIN) == [22]


async def test_messages_are_added_and_read_while_others_are_removed(
    store: Store, small_steps: None
) -> None:
    """A reader from the beginning is told where the log begins, and gets it from there."""
    await add_session(store)
    await add_mixed(store, range(60))

    async def add() -> list[int]:
        return [(await add_message(store, created_at=FOREVER)).seq for _ in range(20)]

    async def read() -> None:
        for _ in range(30):
            page = await store.messages.list_visible(
                "session_1", ADMIN, MessageQuery(limit=1000, after_seq=0), allow
            )
            seqs = [message.seq for message in page.messages]
            assert seqs == list(range(page.first_seq, page.last_seq + 1))
            assert page.total_count == len(seqs)

    _, _, seqs, *_ = await asyncio.gather(expire(store, at(60)), read(), add(), read())
    assert seqs == list(range(61, 81))
    assert await list_seqs(store, ADMIN) == seqs


async def test_sessions_with_old_messages_are_found_open_and_closed_ones(store: Store) -> None:
    for name in ("empty", "new", "old", "closed", "mixed"):
        await add_session(store, name)
    await add_message(store, "new", created_at=at(99))
    for name in ("old", "closed"):
        await add_message(store, name, created_at=at(1))
    await store.sessions.close("closed", at(2), allow, make_audit())
    for seconds in (1, 99):
        await add_message(store, "mixed", created_at=at(seconds))
    await add_session(store, "young", created_at=at(50))
    found: list[str] = []
    after = None
    while True:
        page = await store.expiry.examine(at(50), limit=2, after=after)
        found += page.idle
        after = page.next_after
        if after is None:
            break
    assert found == ["closed", "mixed", "old"]
    for name in found:
        await expire(store, at(50), name)
    assert (await store.expiry.examine(at(50), limit=9)).idle == []
    assert await list_seqs(store, ALICE, "closed") == []
    assert (await store.sessions.get("closed")).last_seq == 1


async def test_what_refers_to_a_removed_message_is_answered_clearly(store: Store) -> None:
    await add_session(store)
    known = {"idempotency_key": "k", "fingerprint": "f"}
    asked = await add_message(store, ack=Ack.REQUIRED, recipients=("bob",), **known)
    reply = await add_message(store, parent_message_id=asked.id, created_at=at(9))
    given = {"parent_message_id": asked.id, "sender": BOB, "ack": Ack.GIVEN, "created_at": at(9)}
    acknowledged = await add_message(store, **given)
    assert await expire(store, at(5)) == 1

    repeated = await add_message(store, **known)
    assert repeated == asked._replace(duplicate=True)
    assert await add_message(store, **given) == acknowledged._replace(duplicate=True)
    with pytest.raises(MessageNotFound):
        await store.messages.get("session_1", asked.id, ALICE, allow)
    for ack in (Ack.NONE, Ack.GIVEN):
        with pytest.raises(MessageNotFound) as refused:
            await add_message(store, parent_message_id=asked.id, sender=CAROL, ack=ack)
        assert refused.value.details["field"] == "parent_message_id"
    replies = MessageQuery(limit=9, parent_message_id=asked.id)
    page = await store.messages.list_visible("session_1", ALICE, replies, allow)
    assert [message.id for message in page.messages] == [reply.id, acknowledged.id]
    found = await store.messages.list_by_ids(ADMIN, [asked.id, reply.id])
    assert [message.id for message in found] == [reply.id]
    assert await store.messages.list_unread_to("bob", limit=9) == []


async def test_a_read_position_before_first_seq_goes_on_from_it(store: Store) -> None:
    await add_session(store)
    await add_mixed(store, range(10))
    await store.sessions.set_cursor("session_1", ADMIN, 3, allow)
    await expire(store, at(10))
    assert await store.sessions.get_cursor("session_1", "root") == 3
    assert (await store.sessions.summarize("session_1", ADMIN, allow)).unread == 0
    assert await store.sessions.set_cursor("session_1", ADMIN, 10, allow) == (10, 0)
    assert (await store.sessions.set_cursor("session_1", ALICE, 5, allow))[0] == 5
    with pytest.raises(InvalidArgument):
        await store.sessions.set_cursor("session_1", ADMIN, 11, allow)


@pytest.mark.parametrize("caller", [BOB, ADMIN])
async def test_a_read_position_behind_the_end_is_refused_in_words_that_are_true_after_a_removal(
    store: Store, caller: Caller
) -> None:
    await add_session(store)

    async def refuse() -> tuple[str, object]:
        with pytest.raises(InvalidArgument) as refused:
            await store.sessions.set_cursor("session_1", caller, 9, allow)
        assert refused.value.details["field"] == "seq"
        return refused.value.message, refused.value.details["last_seq"]

    assert await refuse() == ("seq is 9, but there is no message that you may see.", 0)
    for number in range(2):
        await add_message(store, created_at=at(number))
    newest = "seq is 9, but the newest message you may see has seq {}."
    assert await refuse() == (newest.format(2), 2)
    await expire(store, at(1))
    assert await refuse() == (newest.format(2), 2)
    await expire(store, at(9))
    gone = "the messages up to seq 2 were removed by age"
    none = "after them there is none that you may see"
    assert await refuse() == (f"seq is 9, but {gone}, and {none}.", 2)
    await add_message(store, created_at=at(10), sender=caller)
    assert await refuse() == (newest.format(3), 3)


async def test_a_reader_of_all_sessions_learns_which_have_lost_messages_after_an_id(
    store: Store,
) -> None:
    """By the largest id that each has lost, of those sessions only that it may read."""
    names = ("session_1", "session_2", "session_3", "invited", "deleted", "whole")
    for name in names:
        await add_session(store, name, access=Access.INVITED if name == "invited" else Access.OPEN)
    ids = {}
    for _ in range(2):
        for name in names:
            ids[name] = (await add_message(store, name)).id
    await add_message(store, "session_2", created_at=at(99))
    for name in names[:-1]:
        await expire(store, at(9), name)
    await store.sessions.delete("deleted", allow, make_audit())
    seen = [Removal(name, 3, ids[name]) for name in names[:3]]

    async def page(caller: Caller, after_id: int, limit: int = 9) -> list[Removal]:
        return await store.expiry.list_removals(caller, after_id=after_id, limit=limit)

    assert await page(BOB, 0) == seen
    assert await page(ADMIN, 0) == [*seen, Removal("invited", 3, ids["invited"])]
    assert await page(BOB, 0, 2) == seen[:2]
    assert await page(BOB, seen[1].last_id) == seen[2:]
    assert await page(BOB, seen[2].last_id) == []


async def test_what_was_removed_is_no_longer_counted_as_stored(store: Store) -> None:
    await add_session(store)
    await add_message(store, content="x" * 1000)
    before = await store.sessions.measure_usage("session_1")
    await add_message(store, sender=BOB, content="y" * 10, created_at=at(9))
    await expire(store, at(5))
    after = await store.sessions.measure_usage("session_1")
    assert (after.messages, before.bytes - after.bytes) == (1, 990)
    assert (await store.agents.measure_usage("alice")).messages == 0
    contents = await store.sessions.measure("session_1", allow, now=NOON)
    assert contents.messages == 1
    assert await store.sessions.list_participants("session_1", ADMIN, allow, limit=9) == [
        "alice",
        "bob",
    ]


async def test_removed_messages_still_count_as_activity(store: Store) -> None:
    """A session is not idle earlier because its messages are kept for a shorter time."""
    await add_session(store)
    await add_message(store, created_at=at(100))
    await expire(store, at(200))
    assert (await store.sessions.examine_idle(at(100), limit=9)).idle == []
    assert (await store.sessions.examine_idle(at(101), limit=9)).idle == ["session_1"]


async def test_the_change_stream_tells_of_them_once_and_goes_on(
    store: Store, small_steps: None
) -> None:
    """Also for a reader whose newest message is one of those that are gone."""
    await add_session(store)
    await add_mixed(store, range(10))
    position = await store.changes.get_position()
    await expire(store, at(10))
    assert await store.expiry.get_removed_id("session_1") == position.message_id
    changes = await store.changes.read(position, 100)
    assert not changes.is_set_back
    assert changes.is_complete
    assert changes.events == [Event(EventKind.MESSAGES_EXPIRED, "session_1", seq=11)]
    await add_message(store)
    changes = await store.changes.read(changes.position, 100)
    assert [event.seq for event in changes.events] == [11]
    assert await store.expiry.get_removed_id("none") == 0


async def test_tasks_and_deletion_are_as_before_without_their_messages(store: Store) -> None:
    await add_session(store)
    new = NewTask("session_1", ALICE, "title", "body", 0, None, (), {}, NOON)
    await store.tasks.add(new, allow)
    await expire(store, FOREVER)
    await store.tasks.claim(Claim("session_1", 1, BOB, timedelta(hours=1), NOON), allow)
    done = Finish("session_1", 1, BOB, 1, TaskOutcome.DONE, "result", at(1))
    await store.tasks.finish(done, allow)
    assert len(await read_whole_log(store)) == (await store.sessions.get("session_1")).last_seq - 1
    await store.sessions.delete("session_1", allow, make_audit())
    assert await expire(store, FOREVER) == 0
