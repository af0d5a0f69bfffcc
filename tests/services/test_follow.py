"""A cursor and the loop around it: what all who wait, stream or subscribe have in common."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared_context_server.auth.keys import AUTH_DISABLED
from shared_context_server.errors import CursorLost, SessionNotFound, Unauthenticated
from shared_context_server.events.bus import News
from shared_context_server.models import (
    Caller,
    Event,
    EventKind,
    JsonObject,
    Message,
    Permission,
    Visibility,
)
from shared_context_server.server import Server, open_server
from shared_context_server.services import feeds, follow, messages, sessions
from shared_context_server.services.context import Services
from shared_context_server.services.follow import Follow, SessionCursor
from shared_context_server.services.shared_reads import READ_LIMIT, SharedReads
from shared_context_server.storage.contract import MessageQuery
from shared_context_server.subscriptions import SubscribedResources
from tests.events.news import wait_for_resync
from tests.postgres import DatabaseServer
from tests.storage import builders
from tests.surfaces.conftest import make_settings

PATIENCE_S = 30

ALICE, BOB, CAROL, ADMIN = (
    replace(caller, key_id=AUTH_DISABLED.key_id)
    for caller in (builders.ALICE, builders.BOB, builders.CAROL, builders.ADMIN)
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(make_settings(tmp_path / "data", auth_enabled=False)) as server:
        yield server


@pytest.fixture
def services(server: Server) -> Services:
    return server.services


@pytest.fixture
async def session_id(services: Services) -> str:
    made = await sessions.create_session(
        services, ALICE, purpose="x", metadata={}, access=builders.Access.OPEN, invited=()
    )
    return made.id


async def add(
    services: Services,
    session_id: str,
    content: str = "hello",
    visibility: Visibility = Visibility.PUBLIC,
    recipients: Sequence[str] = (),
    metadata: JsonObject | None = None,
) -> int:
    added = await messages.add_message(
        services,
        ALICE,
        session_id=session_id,
        content=content,
        visibility=visibility,
        recipients=recipients,
        metadata=metadata or {},
        parent_message_id=None,
        idempotency_key=None,
    )
    return added.seq


def added(session_id: str, seq: int) -> News:
    return News((Event(EventKind.MESSAGE_ADDED, session_id, seq=seq),))


async def read_all(cursor: SessionCursor, news: News) -> list[int]:
    """The seqs of all that the cursor reads for this news."""
    seqs = [message.seq for message in await cursor.read(news)]
    while cursor.has_more:
        seqs += [message.seq for message in await cursor.read(news)]
    return seqs


LOOK = News(needs_resync=True)


# The cursor


async def test_a_cursor_reads_what_is_new_once(services: Services, session_id: str) -> None:
    cursor = SessionCursor(services, BOB, session_id, 0, limit=2)
    for _ in range(5):
        await add(services, session_id)
    assert await read_all(cursor, LOOK) == [1, 2, 3, 4, 5]
    assert await read_all(cursor, added(session_id, 5)) == []
    assert await add(services, session_id) == 6
    assert await read_all(cursor, added(session_id, 6)) == [6]
    assert await read_all(cursor, LOOK) == []


async def test_a_cursor_far_behind_its_event_misses_nothing(
    services: Services, session_id: str
) -> None:
    cursor = SessionCursor(services, BOB, session_id, 0)
    last_seq = READ_LIMIT + 10
    for _ in range(last_seq):
        await add(services, session_id)
    assert await read_all(cursor, added(session_id, last_seq)) == list(range(1, last_seq + 1))


async def test_a_cursor_moves_behind_what_the_caller_does_not_see(
    services: Services, session_id: str
) -> None:
    cursor = SessionCursor(services, BOB, session_id, 0)
    for news in (LOOK, added(session_id, 2)):
        await add(services, session_id, visibility=Visibility.PRIVATE)
        assert await read_all(cursor, news) == []
    assert cursor.position == 2


async def test_an_event_that_the_log_contradicts_ends_the_reading(
    services: Services, session_id: str
) -> None:
    """As of a store that was set back: looking again would find as little."""
    await add(services, session_id)
    cursor = SessionCursor(services, BOB, session_id, 1)
    assert await cursor.read(added(session_id, 3)) == []
    assert not cursor.has_more


@pytest.mark.parametrize("is_page", [True, False])
async def test_a_cursor_behind_the_end_of_the_log_is_lost(
    services: Services, session_id: str, is_page: bool
) -> None:
    await add(services, session_id)
    cursor = SessionCursor(services, BOB, session_id, 3)
    with pytest.raises(CursorLost):
        await cursor.read(LOOK if is_page else added(session_id, 4))
    with pytest.raises(CursorLost):
        await cursor.read(News(needs_resync=True, is_set_back=True))


async def test_a_deleted_session_is_not_read_any_more(services: Services, session_id: str) -> None:
    cursor = SessionCursor(services, BOB, session_id, 0)
    other = News((Event(EventKind.SESSION_DELETED, "another"),))
    assert await cursor.read(other) == []
    with pytest.raises(SessionNotFound):
        await cursor.read(News((Event(EventKind.SESSION_DELETED, session_id),)))


async def test_a_caller_without_the_right_to_read_is_refused_by_each_way_of_reading(
    services: Services, session_id: str
) -> None:
    nobody = replace(BOB, permissions=frozenset({Permission.WRITE}))
    await add(services, session_id)
    for news in (LOOK, added(session_id, 1)):
        with pytest.raises(Exception, match="permission 'read'"):
            await SessionCursor(services, nobody, session_id, 0).read(news)


# Shared reads


async def test_many_cursors_share_one_read(services: Services, session_id: str) -> None:
    cursors = [SessionCursor(services, BOB, session_id, 0) for _ in range(50)]
    await add(services, session_id)
    found = await asyncio.gather(*(cursor.read(added(session_id, 1)) for cursor in cursors))
    assert len({id(message) for (message,) in found}) == 1


async def test_each_applies_its_own_rights_to_a_shared_read(
    services: Services, session_id: str
) -> None:
    await add(services, session_id, visibility=Visibility.PRIVATE, recipients=["bob"])
    await add(services, session_id, visibility=Visibility.ADMIN_ONLY)
    await add(services, session_id)
    cursors = [SessionCursor(services, caller, session_id, 0) for caller in (BOB, CAROL, ADMIN)]
    found = await asyncio.gather(*(read_all(cursor, added(session_id, 3)) for cursor in cursors))
    assert found == [[1, 3], [3], [1, 2, 3]]


class UnreadableLog(SharedReads):
    """Has only what this process has just committed."""

    async def read(self, session_id: str, after_seq: int) -> Any:
        raise AssertionError("the store was asked")


async def test_whom_this_process_wakes_is_answered_without_a_read(
    services: Services, session_id: str
) -> None:
    reads = UnreadableLog(services.store, services.identity)
    services = replace(services, shared_reads=reads)
    read: list[list[str]] = []
    looks = asyncio.Semaphore(0)

    async def wait(caller: Caller) -> None:
        with services.bus.subscribe(lambda _: True, session_id=session_id) as subscription:
            cursor = SessionCursor(services, caller, session_id, 0)
            seen: list[str] = []
            async for news in Follow(services, caller, subscription):
                seen += [message.content for message in await cursor.read(news)]
                if "last" in seen:
                    read.append(seen)
                    return
                looks.release()

    with services.bus.subscribe(lambda _: True) as listening:
        await wait_for_resync(listening)  # the link says so once to everybody, when it begins
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        for caller in (BOB, BOB, CAROL):
            tasks.create_task(wait(caller))
        for _ in range(3):
            await looks.acquire()
        private = {"visibility": Visibility.PRIVATE, "recipients": ["bob"]}
        await asyncio.gather(*(add(services, session_id, str(n)) for n in range(5)))
        await add(services, session_id, "psst", **private)  # type: ignore[arg-type]
        await add(services, session_id, "last")
    assert sorted(map(len, read)) == [6, 7, 7]
    assert all(set(seen) <= {*"01234", "psst", "last"} for seen in read)


async def test_what_was_committed_is_kept_no_longer_than_those_it_wakes_need(
    services: Services, session_id: str
) -> None:
    reads = services.shared_reads
    woken: list[int] = []
    with services.bus.subscribe(lambda _: True, session_id=session_id) as subscription:

        async def wait() -> None:
            while (news := await subscription.wait(PATIENCE_S)) is None or not news.events:
                pass  # the look that a new subscription begins with
            woken.append(len(reads.find_committed(session_id, 0)))

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        await add(services, session_id)
        await waiting
    assert woken == [1]
    assert reads.find_committed(session_id, 0) == []
    await add(services, session_id)  # nobody waits
    assert reads.find_committed(session_id, 1) == []


async def test_a_cursor_goes_on_in_the_store_where_what_is_kept_ends(
    services: Services, session_id: str
) -> None:
    cursor = SessionCursor(services, BOB, session_id, 0)
    assert await cursor.read(LOOK) == []
    for _ in range(3):
        await add(services, session_id)
    (first,) = await services.store.messages.read_log(
        session_id, after_seq=0, limit=1, guard=lambda _: None
    )
    services.shared_reads.keep_committed(first)
    assert await read_all(cursor, added(session_id, 3)) == [1, 2, 3]


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


drafts = st.fixed_dictionaries(
    {
        "content": texts.filter(bool),
        "visibility": st.sampled_from(Visibility),
        "recipients": st.lists(st.sampled_from(["bob", "carol", "dave"]), max_size=3),
        "metadata": st.dictionaries(texts, json_values, max_size=3),
    }
)


@hypothesis_settings(max_examples=8, deadline=None)
@given(st.lists(drafts, min_size=5, max_size=10))
def test_what_was_committed_is_kept_as_the_store_reads_it(given: list[dict[str, Any]]) -> None:
    async def compare(services: Services) -> None:
        made = await sessions.create_session(
            services, ALICE, purpose="x", metadata={}, access=builders.Access.OPEN, invited=()
        )
        kept: list[Message] = []
        with services.bus.subscribe(lambda _: True, session_id=made.id):
            for seq, draft in enumerate(given):
                await add(services, made.id, **draft)
                kept += services.shared_reads.find_committed(made.id, seq)
        stored = await services.store.messages.read_log(
            made.id, after_seq=0, limit=len(given), guard=lambda _: None
        )
        assert kept == stored
        # 1 == 1.0 == True, which are three values in JSON.
        assert repr(kept) == repr(stored)

    with tempfile.TemporaryDirectory() as data_dir:
        asyncio.run(in_server(Path(data_dir), compare))


async def in_server(data_dir: Path, use: Any) -> None:
    async with open_server(make_settings(data_dir, auth_enabled=False)) as server:
        await use(server.services)


# The loop


async def test_a_follower_looks_first_and_ends_when_the_time_is_up(services: Services) -> None:
    with services.bus.subscribe(lambda _: True) as subscription:
        in_no_time = Follow(services, BOB, subscription, timeout_s=0)
        assert [news async for news in in_no_time] == [LOOK]
        await wait_for_resync(subscription)  # the link says so once to everybody, when it begins
        waiting = Follow(services, BOB, subscription, timeout_s=0.02, begins_with_look=False)
        assert [news async for news in waiting] == []


@pytest.mark.parametrize("is_quiet", [True, False])
async def test_a_follower_ends_with_its_credential_whether_there_is_news_or_not(
    services: Services, session_id: str, monkeypatch: pytest.MonkeyPatch, is_quiet: bool
) -> None:
    monkeypatch.setattr(follow, "CHECK_INTERVAL_S", 0.01 if is_quiet else PATIENCE_S)
    gone = replace(BOB, key_id="revoked")
    seen: list[Message] = []
    with services.bus.subscribe(lambda _: True, session_id=session_id) as subscription:
        await wait_for_resync(subscription)  # the link says so once to everybody, when it begins
        following = Follow(services, gone, subscription, begins_with_look=False)
        cursor = SessionCursor(services, gone, session_id, 0)
        if not is_quiet:
            await add(services, session_id)

        async def read_on() -> None:
            async for news in following:
                seen.extend(await following.read(cursor, news))

        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(read_on(), PATIENCE_S)
    assert seen == []


async def test_a_stream_and_a_subscription_know_a_log_that_was_set_back_by_their_cursor(
    services: Services, session_id: str
) -> None:
    """Also where nobody has told them."""
    await add(services, session_id)
    feed = feeds.SessionFeed(services, BOB, session_id, 3)
    told = [item async for item in feeds.stream(services, BOB, feed)]
    assert told == [Event(EventKind.LOG_SET_BACK, session_id)]
    resources = SubscribedResources(services, BOB)
    uri = f"session://{session_id}/messages"
    await resources.add(uri)
    resources._cursors[session_id].position = 3
    assert await resources.find_changed(LOOK) == [uri]
    assert await resources.find_changed(LOOK) == []
    await add(services, session_id)
    assert await resources.find_changed(added(session_id, 2)) == [uri]


async def test_what_happens_while_one_subscribes_to_a_resource_is_told(
    services: Services, session_id: str
) -> None:
    resources = SubscribedResources(services, BOB)
    uri = f"session://{session_id}/leases"
    event = Event(EventKind.LEASE_CHANGED, session_id, name="l")
    with services.bus.subscribe(resources.wants, session_id=session_id) as subscription:
        await wait_for_resync(subscription)  # the link says so once to everybody, when it begins
        adding = asyncio.create_task(resources.add(uri))
        while resources.uris != [uri]:  # noqa: ASYNC110 - each turn of the loop counts
            await asyncio.sleep(0)
        assert not adding.done()  # it looks where the log ends
        services.bus.publish(event)
        await adding
        news = await subscription.wait(PATIENCE_S)
        assert news is not None
        assert await resources.find_changed(news) == [uri]
    for refused in (f"session://{session_id}0", "agent://alice/memory"):
        with pytest.raises(Exception, match=r"session|private memory"):
            await resources.add(refused)
    assert resources.uris == [uri]


# Nothing missed, nothing twice

SERVERS = 2
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, SERVERS - 1), st.integers(1, 5)),
        st.tuples(st.just("hide"), st.integers(0, SERVERS - 1), st.integers(1, 3)),
        st.tuples(st.just("write"), st.integers(0, SERVERS - 1), st.integers(30, 40)),
        st.tuples(st.just("pause"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("forget"), st.integers(0, SERVERS - 1), st.just(0)),
    ),
    max_size=12,
)


async def play(data_dir: Path, taken: list[tuple[str, int, int]], **overrides: Any) -> None:
    """Followers of every kind at two servers of one store, and writers at both."""
    settings = make_settings(data_dir, auth_enabled=False, **overrides)
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(open_server(settings)) for _ in range(SERVERS)]
        first = servers[0].services
        made = await sessions.create_session(
            first, ALICE, purpose="x", metadata={}, access=builders.Access.OPEN, invited=()
        )
        seen: list[list[int]] = []

        async def follow_log(services: Services, feed: feeds.Feed) -> None:
            seqs: list[int] = []
            seen.append(seqs)
            async for item in feeds.stream(services, BOB, feed):
                if isinstance(item, Message):
                    seqs.append(item.seq)
                    if item.content == "last":
                        return

        followers = [
            asyncio.create_task(follow_log(server.services, feed))
            for server in servers
            for feed in (
                await feeds.open_session_feed(server.services, BOB, made.id, 0),
                await feeds.open_all_sessions_feed(server.services, BOB, 0),
            )
        ]
        for kind, number, count in taken:
            if kind == "pause":
                for _ in range(number):
                    await asyncio.sleep(0)
                continue
            services = servers[number].services
            if kind == "forget":
                services.bus.deliver_resync()
                continue
            visibility = Visibility.PUBLIC if kind == "write" else Visibility.PRIVATE
            writes = (add(services, made.id, visibility=visibility) for _ in range(count))
            await asyncio.gather(*writes)
        await add(first, made.id, "last")
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*followers)
        query = MessageQuery(limit=1000, after_seq=0)
        expected = [
            m.seq for m in (await messages.get_messages(first, BOB, made.id, query)).messages
        ]
        assert seen == [expected] * len(followers)


@hypothesis_settings(max_examples=15, deadline=None)
@given(steps)
def test_followers_at_any_server_are_shown_each_message_once_in_order(
    taken: list[tuple[str, int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as data_dir:
        asyncio.run(play(Path(data_dir), taken, database_url=None))


@hypothesis_settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(taken=steps)
def test_followers_on_postgresql_too(
    taken: list[tuple[str, int, int]], postgres: DatabaseServer, tmp_path: Path
) -> None:
    with postgres.new_database() as found:
        asyncio.run(play(tmp_path, taken, **found))
