"""The contract of storage/contract against plain Python models of it, on arbitrary data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument, MemoryNotFound, MessageNotFound
from shared_context_server.models import (
    Access,
    Caller,
    MemoryEntry,
    Message,
    Permission,
    Session,
    SessionStatus,
    Visibility,
)
from shared_context_server.storage import Store
from shared_context_server.storage.contract import MessageQuery, NewMessage, SenderCount
from tests.storage.builders import (
    ALL,
    NOON,
    add_message,
    add_session,
    address,
    allow,
    at,
    make_audit,
    put,
)
from tests.storage.conftest import BlockingStore

# Hypothesis gives no example a deadline here: the first one pays for opening.
thorough = settings(max_examples=60, deadline=None)

# Names that could be mistaken for each other, were they joined carelessly.
agent_ids = st.sampled_from(["a", "b", "*", "type:t", "agent:a", "", "A", "é"])
agent_types = st.sampled_from(["t", "u", "*", "a", ""])
callers = st.builds(
    Caller,
    agent_id=agent_ids,
    agent_type=agent_types,
    permissions=st.frozensets(st.sampled_from(Permission)),
    key_id=st.just("key"),
)
times = st.integers(0, 8).map(at)


@st.composite
def new_messages(draw: st.DrawFn) -> NewMessage:
    return NewMessage(
        session_id="",
        sender=draw(callers),
        content="x",
        visibility=draw(st.sampled_from(Visibility)),
        recipients=tuple(draw(st.lists(agent_ids, max_size=3))),
        metadata={},
        parent_message_id=None,
        created_at=draw(times),
    )


@dataclass(frozen=True)
class Log:
    """What was written, as the model knows it."""

    session_id: str
    messages: list[Message]

    def seen_by(self, caller: Caller) -> list[Message]:
        return [message for message in self.messages if policy.can_see_message(caller, message)]


async def write_log(
    store: Store, session_id: str, news: list[NewMessage], parents: list[int]
) -> Log:
    """`parents` are indexes of earlier messages, or of none."""
    await add_session(store, session_id)
    messages: list[Message] = []
    for index, new in enumerate(news):
        parent = None
        if index < len(parents) and parents[index] < len(messages):
            candidate = messages[parents[index]]
            parent = candidate.id if policy.can_reply_to(new.sender, candidate) else None
        new = new._replace(session_id=session_id, parent_message_id=parent)
        added = await store.messages.append(new, allow)
        messages.append(
            Message(
                id=added.id,
                session_id=session_id,
                seq=index + 1,
                sender=new.sender.agent_id,
                sender_type=new.sender.agent_type,
                content=new.content,
                visibility=new.visibility,
                recipients=list(new.recipients),
                metadata={},
                parent_message_id=parent,
                timestamp=new.created_at,
            )
        )
    return Log(session_id, messages)


# Visibility


@given(news=st.lists(new_messages(), max_size=12), asking=st.lists(callers, min_size=1, max_size=4))
@thorough
def test_every_way_of_reading_shows_what_the_policy_grants(
    blocking: BlockingStore, news: list[NewMessage], asking: list[Caller]
) -> None:
    async def check() -> None:
        store = blocking.store
        log = await write_log(store, blocking.next_name(), news, [])
        for caller in asking:
            visible = log.seen_by(caller)
            page = await store.messages.list_visible(log.session_id, caller, ALL, allow)
            assert list(page.messages) == visible
            assert (page.total_count, page.last_seq) == (len(visible), len(news))
            summary = await store.sessions.summarize(log.session_id, caller, allow)
            assert summary.message_count == len(visible)
            assert summary.last_activity == (visible[-1].timestamp if visible else NOON)
            for message in log.messages:
                if message in visible:
                    got = await store.messages.get(log.session_id, message.id, caller, allow)
                    assert got == message
                else:
                    with pytest.raises(MessageNotFound):
                        await store.messages.get(log.session_id, message.id, caller, allow)

    blocking.run(check())


@given(
    news=st.lists(new_messages(), max_size=12),
    caller=callers,
    cursors=st.lists(st.integers(0, 12), min_size=1, max_size=4),
)
@thorough
def test_unread_and_counts_by_sender_cover_what_the_policy_grants(
    blocking: BlockingStore, news: list[NewMessage], caller: Caller, cursors: list[int]
) -> None:
    async def check() -> None:
        store = blocking.store
        log = await write_log(store, blocking.next_name(), news, [])
        stored = 0
        for cursor in cursors:
            newest = max((message.seq for message in log.seen_by(caller)), default=0)
            if cursor > newest:
                with pytest.raises(InvalidArgument) as refused:
                    await store.sessions.set_cursor(log.session_id, caller, cursor, allow)
                assert refused.value.details == {"field": "seq", "last_seq": newest}
                continue
            stored = max(stored, cursor)
            unread = len(
                [
                    message
                    for message in log.seen_by(caller)
                    if message.seq > stored and message.sender != caller.agent_id
                ]
            )
            set_to = await store.sessions.set_cursor(log.session_id, caller, cursor, allow)
            assert set_to == (stored, unread)
            summary = await store.sessions.summarize(log.session_id, caller, allow)
            assert summary.unread == unread
            counts = await store.messages.count_by_sender(
                log.session_id, caller, after_seq=cursor, guard=allow
            )
            assert counts == count_senders(log.seen_by(caller), after_seq=cursor)

    blocking.run(check())


def count_senders(messages: list[Message], *, after_seq: int) -> list[SenderCount]:
    senders = [message.sender for message in messages if message.seq > after_seq]
    counts = [SenderCount(sender, senders.count(sender)) for sender in set(senders)]
    return sorted(counts, key=lambda count: (-count.count, count.sender))


# Listing


queries = st.builds(
    MessageQuery,
    limit=st.integers(1, 6),
    offset=st.integers(0, 4),
    after_seq=st.none() | st.integers(-1, 13),
    before_seq=st.none() | st.integers(-1, 14),
    sender=st.none() | agent_ids,
    visibility=st.none() | st.sampled_from(Visibility),
    start_time=st.none() | times,
    end_time=st.none() | times,
    parent_message_id=st.none() | st.integers(0, 12),  # an index until the log is written
)


def is_match(message: Message, query: MessageQuery) -> bool:
    return (
        query.sender in (None, message.sender)
        and query.visibility in (None, message.visibility)
        and (query.start_time is None or message.timestamp >= query.start_time)
        and (query.end_time is None or message.timestamp <= query.end_time)
        and query.parent_message_id in (None, message.parent_message_id)
    )


def choose_page(matching: list[Message], query: MessageQuery) -> tuple[list[Message], bool]:
    """By the definition: with a cursor forwards from it, without backwards from the end."""
    within = [
        message
        for message in matching
        if (query.after_seq is None or message.seq > query.after_seq)
        and (query.before_seq is None or message.seq < query.before_seq)
    ]
    if query.after_seq is None:
        within.reverse()
    rest = within[query.offset :]
    page = rest[: query.limit]
    return (page if query.after_seq is not None else page[::-1]), len(rest) > query.limit


@given(
    news=st.lists(new_messages(), max_size=12),
    parents=st.lists(st.integers(0, 15), max_size=12),
    caller=callers,
    asked=st.lists(queries, min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_any_query_answers_as_the_definition_says(
    blocking: BlockingStore,
    news: list[NewMessage],
    parents: list[int],
    caller: Caller,
    asked: list[MessageQuery],
) -> None:
    async def check() -> None:
        log = await write_log(blocking.store, blocking.next_name(), news, parents)
        for query in asked:
            fields = {name: getattr(query, name) for name in MessageQuery.__slots__}
            if (index := query.parent_message_id) is not None:
                fields["parent_message_id"] = log.messages[index].id if index < len(news) else 0
            query = MessageQuery(**fields)
            matching = [message for message in log.seen_by(caller) if is_match(message, query)]
            messages, has_more = choose_page(matching, query)
            page = await blocking.store.messages.list_visible(log.session_id, caller, query, allow)
            assert list(page.messages) == messages
            assert page.has_more is has_more, query
            assert page.total_count == len(matching), query

    blocking.run(check())


@given(
    news=st.lists(new_messages(), max_size=20),
    caller=callers,
    sizes=st.lists(st.integers(1, 5), min_size=1),
    late=st.lists(new_messages(), max_size=5),
)
@thorough
def test_reading_by_cursor_sees_each_visible_message_once_in_order(
    blocking: BlockingStore,
    news: list[NewMessage],
    caller: Caller,
    sizes: list[int],
    late: list[NewMessage],
) -> None:
    """With pages of any size, and others writing between them."""

    async def check() -> None:
        store = blocking.store
        log = await write_log(store, blocking.next_name(), news, [])
        arriving = iter(late)
        seen: list[Message] = []
        after_seq = 0
        for size in itertools.cycle(sizes):
            query = MessageQuery(limit=size, after_seq=after_seq)
            page = await store.messages.list_visible(log.session_id, caller, query, allow)
            seen += page.messages
            after_seq = page.messages[-1].seq if page.messages else after_seq
            new = next(arriving, None)
            if new is not None:
                await add_message(store, **new._asdict() | {"session_id": log.session_id})
            elif not page.has_more:
                break
        written = await store.messages.read_log(log.session_id, after_seq=0, limit=100, guard=allow)
        assert len(written) == len(news) + len(late)
        visible = [message for message in written if policy.can_see_message(caller, message)]
        # What arrived behind the last page is read by the next one.
        rest = await store.messages.list_visible(
            log.session_id, caller, MessageQuery(limit=100, after_seq=after_seq), allow
        )
        assert [*seen, *rest.messages] == visible

    blocking.run(check())


# Sessions


@given(
    made=st.lists(
        st.tuples(
            agent_ids,
            st.sampled_from(Access),
            st.lists(agent_ids, max_size=2),
            st.booleans(),
            times,
        ),
        max_size=8,
    ),
    caller=callers,
    status=st.none() | st.sampled_from(SessionStatus),
    creator=st.none() | agent_ids,
    limit=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_sessions_are_listed_as_the_policy_grants(
    blocking: BlockingStore,
    made: list[tuple[str, Access, list[str], bool, datetime]],
    caller: Caller,
    status: SessionStatus | None,
    creator: str | None,
    limit: int,
) -> None:
    async def check() -> None:
        store = blocking.store
        sessions: list[Session] = []
        for created_by, access, invited, is_closed, created_at in made:
            session = await add_session(
                store,
                blocking.next_name(),
                created_by=created_by,
                access=access,
                invited=tuple(invited),
                created_at=created_at,
            )
            if is_closed:
                session = await store.sessions.close(session.id, NOON, allow, make_audit())
            sessions.append(session)
        expected = [
            session
            for session in sorted(sessions, key=lambda s: (s.created_at, s.id), reverse=True)
            if policy.can_see_session(caller, session)
            and status in (None, session.status)
            and creator in (None, session.created_by)
        ]
        mine = {session.id for session in sessions}
        listed: list[Session] = []
        before = None
        has_more = True
        while has_more:
            page = await store.sessions.list_visible(
                caller, status=status, created_by=creator, limit=limit, before=before
            )
            listed += [summary.session for summary in page.items]
            has_more = page.has_more
            if has_more:
                before = (page.items[-1].session.created_at, page.items[-1].session.id)
        assert [session for session in listed if session.id in mine] == expected
        for name in mine:
            await store.sessions.delete(name, allow, make_audit())

    blocking.run(check())


# Memory


keys = st.sampled_from(["", "a", "ab", "a%", "b", "\U0010ffff"])
steps = st.one_of(
    st.tuples(st.just("put"), keys, st.integers(0, 9), st.none() | st.integers(1, 4)),
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("list"), keys, st.none() | keys, st.integers(1, 4)),
    st.tuples(st.just("pass"), st.integers(1, 3)),
    st.tuples(st.just("purge")),
)


class MemoryModel:
    """A dict with a clock."""

    def __init__(self) -> None:
        self.now = NOON
        self._entries: dict[str, MemoryEntry] = {}

    def find(self, key: str) -> MemoryEntry | None:
        entry = self._entries.get(key)
        is_expired = entry and entry.expires_at is not None and entry.expires_at <= self.now
        return None if is_expired else entry

    def put(self, entry: MemoryEntry) -> None:
        self._entries[entry.address.key] = entry

    def delete(self, key: str) -> None:
        del self._entries[key]

    def list_keys(self, prefix: str, after: str | None, limit: int) -> list[str]:
        found = sorted(key for key in self._entries if self.find(key) and key.startswith(prefix))
        return [key for key in found if after is None or key > after][:limit]


@given(script=st.lists(steps, max_size=25))
@thorough
def test_memory_behaves_like_a_dict_with_versions_and_expiry(
    blocking: BlockingStore, script: list[tuple[Any, ...]]
) -> None:
    async def check() -> None:
        owner = blocking.next_name()
        model = MemoryModel()
        for step, *arguments in script:
            if step == "pass":
                model.now = model.now + (at(arguments[0]) - NOON)
            elif step == "purge":
                await blocking.store.maintenance.purge(
                    expired_before=model.now, idempotency_before=NOON, audit_before=NOON
                )
            else:
                await MEMORY_STEPS[step](blocking.store, model, owner, *arguments)

    blocking.run(check())


async def put_both(
    store: Store, model: MemoryModel, owner: str, key: str, value: int, life: int | None
) -> None:
    current = model.find(key)
    expected = MemoryEntry(
        address=address(key, owner=owner),
        value=value,
        version=current.version + 1 if current else 1,
        metadata={},
        created_at=current.created_at if current else model.now,
        updated_at=model.now,
        updated_by="a",
        expires_at=model.now + (at(life) - NOON) if life else None,
    )
    caller = Caller("a", "t", frozenset(), "key")
    written = await store.memory.write(
        expected.address,
        caller,
        put(value, expires_at=expected.expires_at),
        now=model.now,
        guard=None,
    )
    assert written.entry == expected
    model.put(expected)


async def get_both(store: Store, model: MemoryModel, owner: str, key: str) -> None:
    place = address(key, owner=owner)
    expected = model.find(key)
    if expected is None:
        with pytest.raises(MemoryNotFound):
            await store.memory.get(place, now=model.now, guard=None)
    else:
        assert await store.memory.get(place, now=model.now, guard=None) == expected


async def delete_both(store: Store, model: MemoryModel, owner: str, key: str) -> None:
    deletion = store.memory.delete(
        address(key, owner=owner),
        lambda entry: None,
        now=model.now,
        guard=None,
        audit=make_audit(),
    )
    if model.find(key) is None:
        with pytest.raises(MemoryNotFound):
            await deletion
    else:
        await deletion
        model.delete(key)


async def list_both(
    store: Store, model: MemoryModel, owner: str, prefix: str, after: str | None, limit: int
) -> None:
    listed = await store.memory.list_entries(
        session_id=None,
        owner=owner,
        prefix=prefix,
        limit=limit,
        after_key=after,
        now=model.now,
        guard=None,
    )
    assert [entry.address.key for entry in listed.items] == model.list_keys(prefix, after, limit)


MEMORY_STEPS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "put": put_both,
    "get": get_both,
    "delete": delete_both,
    "list": list_both,
}


# JSON


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


def describe(value: Any) -> str:
    """Tells apart what == does not: 1 and 1.0 and True, 0.0 and -0.0, the order of keys."""
    return repr(value)


@given(value=json_values, metadata=st.dictionaries(st.text(), json_values, max_size=3))
@thorough
def test_any_json_comes_back_as_it_was(
    blocking: BlockingStore, value: Any, metadata: dict[str, Any]
) -> None:
    async def check() -> None:
        store = blocking.store
        name = blocking.next_name()
        await add_session(store, name, metadata=metadata)
        assert describe((await store.sessions.get(name)).metadata) == describe(metadata)
        await add_message(store, name, metadata=metadata)
        (message,) = await store.messages.read_log(name, after_seq=0, limit=5, guard=allow)
        assert describe(message.metadata) == describe(metadata)
        place = address("k", owner=name)
        caller = Caller("a", "t", frozenset(), "key")
        await store.memory.write(place, caller, put(value), now=NOON, guard=None)
        entry = await store.memory.get(place, now=NOON, guard=None)
        assert describe(entry.value) == describe(value)

    blocking.run(check())
