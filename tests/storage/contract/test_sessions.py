"""The contract of storage/contract: sessions, participants, cursors."""

from __future__ import annotations

import pytest

from shared_context_server.errors import Conflict, InvalidArgument, SessionClosed, SessionNotFound
from shared_context_server.models import (
    ANONYMOUS,
    Access,
    Caller,
    Permission,
    Session,
    SessionStatus,
    SessionSummary,
    Visibility,
)
from shared_context_server.storage import Store
from shared_context_server.storage.contract import AuditQuery
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
    address,
    allow,
    at,
    make_audit,
    make_caller,
    new_session,
    put,
    refuse,
    writer_guard,
)


async def list_ids(store: Store, caller: Caller, **filters: object) -> list[str]:
    arguments = {"status": None, "created_by": None, "limit": 100} | filters
    page = await store.sessions.list_visible(caller, **arguments)  # type: ignore[arg-type]
    return [summary.session.id for summary in page.items]


async def summarize(store: Store, caller: Caller) -> SessionSummary:
    return await store.sessions.summarize("session_1", caller, allow)


# Creating and getting


async def test_a_session_comes_back_as_it_was_created(store: Store) -> None:
    new = new_session(
        purpose="Grüße 🚀 \x01 'quoted'",
        metadata={"z": 1, "a": [1.5, None, True, {"k": "v"}], "big": 2**70},
        access=Access.INVITED,
        invited=("bob", "carol"),
    )
    created = await store.sessions.create(new, make_audit())
    assert created == Session(
        id="session_1",
        purpose=new.purpose,
        metadata=new.metadata,
        access=Access.INVITED,
        status=SessionStatus.ACTIVE,
        created_by="alice",
        created_at=NOON,
        closed_at=None,
        invited=("bob", "carol"),
        last_seq=0,
    )
    found = await store.sessions.get("session_1")
    assert found == created
    assert list(found.metadata) == ["z", "a", "big"]


async def test_creating_a_session_leaves_an_audit_entry(store: Store) -> None:
    await store.sessions.create(new_session(), make_audit("session_created"))
    entries = await store.audit.list_newest(AuditQuery(limit=10))
    assert [entry.event_type for entry in entries] == ["session_created"]


async def test_a_session_id_is_taken_once(store: Store) -> None:
    await add_session(store, purpose="first")
    with pytest.raises(Conflict):
        await add_session(store, purpose="second")
    assert (await store.sessions.get("session_1")).purpose == "first"
    assert len(await store.audit.list_newest(AuditQuery(limit=10))) == 1


async def test_last_seq_follows_the_log(store: Store) -> None:
    await add_session(store)
    await add_message(store)
    await add_message(store, visibility=Visibility.ADMIN_ONLY)
    assert (await store.sessions.get("session_1")).last_seq == 2


async def test_a_missing_session_is_not_found_by_any_method(store: Store) -> None:
    """Also before the guard, which must not be asked about nothing."""
    place = address("key", session_id="session_0")
    for call in (
        store.sessions.get("session_0"),
        store.sessions.summarize("session_0", ALICE, refuse),
        store.sessions.list_participants("session_0", ALICE, refuse, limit=99),
        store.sessions.close("session_0", NOON, refuse, make_audit()),
        store.sessions.delete("session_0", refuse, make_audit()),
        add_message(store, "session_0", guard=refuse),
        store.messages.list_visible("session_0", ALICE, ALL, refuse),
        store.messages.get("session_0", 1, ALICE, refuse),
        store.messages.read_log("session_0", after_seq=0, limit=1, guard=refuse),
        store.messages.count_by_sender("session_0", ALICE, after_seq=0, guard=refuse),
        store.sessions.get_cursor("session_0", "alice"),
        store.sessions.set_cursor("session_0", ALICE, 0, refuse),
        store.memory.write(place, ALICE, put(1), now=NOON, guard=refuse),
        store.memory.get(place, now=NOON, guard=refuse),
        store.memory.list_entries(
            session_id="session_0",
            owner=None,
            prefix="",
            limit=1,
            after_key=None,
            now=NOON,
            guard=refuse,
        ),
        store.memory.delete(place, lambda entry: None, now=NOON, guard=refuse, audit=make_audit()),
        store.agents.list_seen("session_0", ALICE, refuse, limit=99),
    ):
        with pytest.raises(SessionNotFound) as caught:
            await call
        assert caught.value.details["session_id"] == "session_0"
    assert await store.audit.list_newest(AuditQuery(limit=10)) == []


async def test_a_guard_sees_the_session_and_its_error_is_passed_on(store: Store) -> None:
    session = await add_session(store)
    seen: list[Session] = []
    await store.sessions.summarize("session_1", ALICE, seen.append)
    await add_message(store, guard=seen.append)
    assert seen == [session, session]
    for call in (
        store.sessions.summarize("session_1", ALICE, refuse),
        store.sessions.list_participants("session_1", ALICE, refuse, limit=99),
        store.sessions.close("session_1", NOON, refuse, make_audit()),
        store.sessions.delete("session_1", refuse, make_audit()),
        add_message(store, guard=refuse),
        store.messages.list_visible("session_1", ALICE, ALL, refuse),
        store.messages.get("session_1", 1, ALICE, refuse),
        store.messages.read_log("session_1", after_seq=0, limit=1, guard=refuse),
        store.messages.count_by_sender("session_1", ALICE, after_seq=0, guard=refuse),
        store.sessions.set_cursor("session_1", ALICE, 0, refuse),
        store.agents.list_seen("session_1", ALICE, refuse, limit=99),
    ):
        with pytest.raises(Refusal, match="session_1"):
            await call
    assert await store.sessions.get("session_1") == session._replace(last_seq=1)


# Listing


async def test_sessions_are_listed_newest_first_and_page_without_gaps(store: Store) -> None:
    for name, seconds in (("b", 0), ("a", 0), ("d", 5), ("c", -5)):
        await add_session(store, name, created_at=at(seconds))
    assert await list_ids(store, ALICE) == ["d", "b", "a", "c"]
    seen: list[str] = []
    before = None
    has_more = True
    while has_more:
        page = await store.sessions.list_visible(
            ALICE, status=None, created_by=None, limit=1, before=before
        )
        seen += [summary.session.id for summary in page.items]
        before = (page.items[-1].session.created_at, page.items[-1].session.id)
        has_more = page.has_more
    assert seen == ["d", "b", "a", "c"]


@pytest.mark.parametrize("created_by", [None, "alice", "bob"])
@pytest.mark.parametrize("status", [None, SessionStatus.ACTIVE, SessionStatus.CLOSED])
async def test_sessions_are_filtered_by_status_and_creator(
    store: Store, status: SessionStatus | None, created_by: str | None
) -> None:
    expected = []
    for index, (creator, is_closed) in enumerate(
        (creator, is_closed) for creator in ("alice", "bob") for is_closed in (False, True)
    ):
        name = f"s{index}"
        await add_session(store, name, created_by=creator, created_at=at(-index))
        if is_closed:
            await store.sessions.close(name, at(1), allow, make_audit())
        wanted = SessionStatus.CLOSED if is_closed else SessionStatus.ACTIVE
        if status in (None, wanted) and created_by in (None, creator):
            expected.append(name)
    assert await list_ids(store, CAROL, status=status, created_by=created_by) == expected
    newest = expected[:1]
    assert await list_ids(store, CAROL, status=status, created_by=created_by, limit=1) == newest


async def test_invited_sessions_are_listed_for_members_and_admins_only(store: Store) -> None:
    await add_session(store, "open")
    await add_session(store, "hers", access=Access.INVITED, created_at=at(-1))
    await add_session(
        store, "with_bob", access=Access.INVITED, invited=("x", "bob"), created_at=at(-2)
    )
    assert await list_ids(store, ALICE) == ["open", "hers", "with_bob"]
    assert await list_ids(store, BOB) == ["open", "with_bob"]
    assert await list_ids(store, CAROL) == ["open"]
    assert await list_ids(store, ADMIN) == ["open", "hers", "with_bob"]
    assert await list_ids(store, ANONYMOUS) == []
    assert await list_ids(store, make_caller("bob", "claude", Permission.WRITE)) == [
        "open",
        "with_bob",
    ]


async def test_listed_and_single_summaries_agree(store: Store) -> None:
    await add_session(store)
    await add_message(store)
    await add_message(store, visibility=Visibility.PRIVATE, recipients=("bob",))
    for caller in (ALICE, BOB, CAROL, ADMIN):
        listed = await store.sessions.list_visible(caller, status=None, created_by=None, limit=5)
        assert listed.items == [await summarize(store, caller)]


# Summaries


async def test_an_empty_session_was_last_active_when_it_was_created(store: Store) -> None:
    session = await add_session(store)
    assert await summarize(store, ALICE) == SessionSummary(session, 0, 0, NOON)
    assert await summarize(store, ADMIN) == SessionSummary(session, 0, 0, NOON)


async def test_a_summary_covers_only_what_the_caller_sees(store: Store) -> None:
    await add_session(store)
    await add_message(store, created_at=at(1))
    await add_message(store, created_at=at(2), visibility=Visibility.PRIVATE, recipients=("carol",))
    await add_message(store, created_at=at(3), visibility=Visibility.AGENT_ONLY)
    await add_message(store, created_at=at(4), visibility=Visibility.ADMIN_ONLY)
    for caller, count, newest in ((ALICE, 3, 3), (BOB, 2, 3), (CAROL, 2, 2), (ADMIN, 4, 4)):
        summary = await summarize(store, caller)
        unread = 0 if caller is ALICE else count  # all messages are hers
        assert (summary.message_count, summary.unread) == (count, unread), caller
        assert summary.last_activity == at(newest)
        assert summary.session.last_seq == 4


async def test_last_activity_is_the_time_of_the_newest_in_the_log(store: Store) -> None:
    """Not the largest time: the log's order is that of its seqs."""
    await add_session(store)
    await add_message(store, created_at=at(10))
    await add_message(store, created_at=at(5))
    assert (await summarize(store, ALICE)).last_activity == at(5)
    assert (await summarize(store, ADMIN)).last_activity == at(5)


# Participants


async def test_participants_are_creator_invited_writers_each_once(store: Store) -> None:
    await add_session(store, invited=("carol", "alice", "dave"))
    for name in ("zoe", "dave", "bob", "zoe"):
        await add_message(store, sender=make_caller(name))
    expected = ["alice", "carol", "dave", "zoe", "bob"]
    assert await store.sessions.list_participants("session_1", ALICE, allow, limit=99) == expected


async def test_participants_are_told_to_who_sees_what_they_wrote(store: Store) -> None:
    await add_session(store)
    for name, visibility, recipients in (
        ("dave", Visibility.ADMIN_ONLY, ()),
        ("erin", Visibility.PRIVATE, ("bob",)),
        ("bob", Visibility.PRIVATE, ("carol",)),
        ("frank", Visibility.AGENT_ONLY, ()),
        ("erin", Visibility.PUBLIC, ()),
    ):
        sender = make_caller(name, "gpt" if name == "frank" else "claude")
        await add_message(store, sender=sender, visibility=visibility, recipients=recipients)
    for caller, expected in (
        (ALICE, ["alice", "erin"]),
        (BOB, ["alice", "erin", "bob"]),
        (CAROL, ["alice", "bob", "frank", "erin"]),
        (ADMIN, ["alice", "dave", "erin", "bob", "frank"]),
    ):
        assert (
            await store.sessions.list_participants("session_1", caller, allow, limit=99) == expected
        )


async def test_a_read_position_ends_at_the_newest_message_the_caller_sees(
    store: Store,
) -> None:
    await add_session(store)
    await add_message(store)
    for _ in range(3):
        await add_message(store, visibility=Visibility.PRIVATE)
    assert await store.sessions.set_cursor("session_1", ADMIN, 4, allow) == (4, 0)
    for seq in (2, 4, 99):
        with pytest.raises(InvalidArgument) as refused:
            await store.sessions.set_cursor("session_1", BOB, seq, allow)
        assert refused.value.details == {"field": "seq", "last_seq": 1}
    assert await store.sessions.set_cursor("session_1", BOB, 1, allow) == (1, 0)


# Closing


async def test_a_closed_session_says_when_and_refuses_writers(store: Store) -> None:
    await add_session(store)
    await add_message(store)
    closed = await store.sessions.close("session_1", at(9), allow, make_audit("closed"))
    assert (closed.status, closed.closed_at) == (SessionStatus.CLOSED, at(9))
    assert await store.sessions.get("session_1") == closed
    with pytest.raises(SessionClosed):
        await add_message(store, guard=writer_guard(ALICE))
    page = await store.messages.list_visible("session_1", ALICE, ALL, allow)
    assert [message.seq for message in page.messages] == [1]


async def test_closing_again_changes_nothing(store: Store) -> None:
    await add_session(store)
    closed = await store.sessions.close("session_1", at(9), allow, make_audit("closed"))
    again = await store.sessions.close("session_1", at(10), allow, make_audit("closed"))
    assert again == closed
    entries = await store.audit.list_newest(AuditQuery(limit=10, event_type="closed"))
    assert len(entries) == 1


# Deleting


async def test_a_deleted_session_leaves_only_its_audit(store: Store) -> None:
    for name in ("session_1", "session_2"):
        await add_session(store, name)
        for index in range(3):
            await add_message(store, name, idempotency_key=f"k{index}", sender=BOB)
        await store.sessions.set_cursor(name, ALICE, 2, allow)
        place = address("key", session_id=name)
        await store.memory.write(place, ALICE, put(1), now=NOON, guard=allow)
    await store.memory.write(address("key"), ALICE, put(1), now=NOON, guard=None)

    await store.sessions.delete("session_1", allow, make_audit("deleted", session_id="session_1"))

    with pytest.raises(SessionNotFound):
        await store.sessions.get("session_1")
    assert await list_ids(store, ADMIN) == ["session_2"]
    assert await list_ids(store, ADMIN, status=SessionStatus.ACTIVE, created_by="alice") == [
        "session_2"
    ]
    entries = await store.audit.list_newest(AuditQuery(limit=10, session_id="session_1"))
    assert [entry.event_type for entry in entries] == ["deleted"]
    # The other session and the server-wide memory are untouched.
    assert (await store.sessions.summarize("session_2", ALICE, allow)).message_count == 3
    assert (await store.memory.get(address("key"), now=NOON, guard=None)).value == 1
    other = address("key", session_id="session_2")
    assert (await store.memory.get(other, now=NOON, guard=allow)).value == 1
    assert (await add_message(store, "session_2", idempotency_key="k0", sender=BOB)).duplicate


async def test_nothing_of_a_deleted_session_comes_back_with_its_id(store: Store) -> None:
    place = address("key", session_id="session_1")
    await add_session(store)
    for index in range(1200):  # more than one step of the removal
        await add_message(store, idempotency_key=f"k{index}")
    await store.sessions.set_cursor("session_1", BOB, 2, allow)
    await store.memory.write(place, ALICE, put(1), now=NOON, guard=allow)
    await store.sessions.delete("session_1", allow, make_audit())

    created = await add_session(store, created_by="carol")
    assert created.last_seq == 0
    assert await store.sessions.get_cursor("session_1", "bob") == 0
    assert await store.sessions.list_participants("session_1", ALICE, allow, limit=99) == ["carol"]
    added = await add_message(store, idempotency_key="k0")
    assert (added.seq, added.duplicate) == (1, False)
    assert (await summarize(store, ALICE)).message_count == 1
    written = await store.memory.write(place, ALICE, put(2), now=NOON, guard=allow)
    assert written.entry.version == 1


# Cursors


async def test_a_cursor_starts_at_zero_and_never_goes_back(store: Store) -> None:
    await add_session(store)
    for _ in range(5):
        await add_message(store)
    assert await store.sessions.get_cursor("session_1", "bob") == 0
    assert await store.sessions.set_cursor("session_1", BOB, 3, allow) == (3, 2)
    assert await store.sessions.set_cursor("session_1", BOB, 1, allow) == (3, 2)
    assert await store.sessions.set_cursor("session_1", BOB, -7, allow) == (3, 2)
    assert await store.sessions.set_cursor("session_1", BOB, 5, allow) == (5, 0)
    assert await store.sessions.get_cursor("session_1", "bob") == 5
    assert await store.sessions.get_cursor("session_1", "carol") == 0
    assert (await summarize(store, BOB)).unread == 0
    assert (await summarize(store, CAROL)).unread == 5


async def test_own_messages_are_never_unread(store: Store) -> None:
    await add_session(store)
    for sender in (ALICE, BOB, ADMIN, ALICE):
        await add_message(store, sender=sender)
    for caller, unread in ((ALICE, 2), (BOB, 3), (ADMIN, 3)):
        assert (await summarize(store, caller)).unread == unread
        assert await store.sessions.set_cursor("session_1", caller, 1, allow) == (
            1,
            unread - (caller is not ALICE),
        )


async def test_unread_counts_only_what_the_caller_sees(store: Store) -> None:
    await add_session(store)
    await add_message(store)
    await add_message(store, visibility=Visibility.ADMIN_ONLY)
    await add_message(store, visibility=Visibility.PRIVATE, recipients=("bob",))
    assert await store.sessions.set_cursor("session_1", CAROL, 1, allow) == (1, 0)
    assert await store.sessions.set_cursor("session_1", BOB, 2, allow) == (2, 1)
    assert await store.sessions.set_cursor("session_1", ADMIN, 1, allow) == (1, 2)


@pytest.mark.parametrize("seq", [1, 2**63, 10**30])
async def test_a_cursor_beyond_the_log_is_refused(store: Store, seq: int) -> None:
    await add_session(store)
    with pytest.raises(InvalidArgument) as caught:
        await store.sessions.set_cursor("session_1", ALICE, seq, allow)
    assert caught.value.details["field"] == "seq"
    assert await store.sessions.get_cursor("session_1", "alice") == 0
