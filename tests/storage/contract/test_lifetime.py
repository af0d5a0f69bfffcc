"""The contract of storage/contract: opening, closing, answering."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

import anyio
import pytest

from shared_context_server.errors import ConfigurationError, Unavailable
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from tests.storage.builders import (
    ALICE,
    ALL,
    NOON,
    add_message,
    add_session,
    address,
    allow,
    make_audit,
    new_message,
    new_session,
    put,
)


async def test_a_store_that_works_answers_a_ping(store: Store) -> None:
    await store.maintenance.ping()


async def test_what_was_written_is_there_after_reopening(any_settings: Settings) -> None:
    async with open_storage(any_settings) as store:
        session = await add_session(store)
    async with open_storage(any_settings) as store:
        assert await store.sessions.get("session_1") == session
        assert (await add_message(store)).seq == 1


async def test_two_stores_on_one_database_see_each_others_writes(any_settings: Settings) -> None:
    async with open_storage(any_settings) as one, open_storage(any_settings) as other:
        await add_session(one)
        for index in range(20):
            writer, reader = (one, other) if index % 2 else (other, one)
            added = await add_message(writer)
            assert added.seq == index + 1
            assert (await reader.sessions.get("session_1")).last_seq == added.seq


async def test_closing_finishes_the_writes_under_way(any_settings: Settings) -> None:
    async with open_storage(any_settings) as store:
        await add_session(store)
        writes = [
            asyncio.create_task(store.messages.append(new_message(), allow)) for _ in range(300)
        ]
        reads = [
            asyncio.create_task(store.messages.list_visible("session_1", ALICE, ALL, allow))
            for _ in range(50)
        ]
        await asyncio.sleep(0)  # all of them have begun
        await store.maintenance.aclose()
        assert {(await write).seq for write in writes} == set(range(1, 301))
        assert len([await read for read in reads]) == 50
    async with open_storage(any_settings) as store:
        assert (await store.sessions.get("session_1")).last_seq == 300


async def test_a_closed_store_is_unavailable_to_every_call(any_settings: Settings) -> None:
    async with open_storage(any_settings) as store:
        await add_session(store)
        await store.maintenance.aclose()
        await store.maintenance.aclose()  # again is no error
    place = address("k")
    audit = make_audit()
    calls: tuple[tuple[Callable[..., Awaitable[object]], tuple[object, ...]], ...] = (
        (store.maintenance.ping, ()),
        (store.sessions.create, (new_session("s"), audit)),
        (store.sessions.get, ("session_1",)),
        (store.sessions.delete, ("session_1", allow, audit)),
        (store.messages.append, (new_message(), allow)),
        (store.messages.list_visible, ("session_1", ALICE, ALL, allow)),
        (store.sessions.set_cursor, ("session_1", ALICE, 0, allow)),
        (store.credentials.list_keys, ()),
        (store.audit.add, (audit,)),
    )
    for method, arguments in calls:
        with pytest.raises(Unavailable):
            await method(*arguments)
    with pytest.raises(Unavailable):
        await store.memory.write(place, ALICE, put(1), now=NOON, guard=None)


async def test_a_cancelled_server_still_finishes_its_writes_and_closes(
    any_settings: Settings,
) -> None:
    with anyio.CancelScope() as scope:
        async with open_storage(any_settings) as store:
            await add_session(store)
            writes = [
                asyncio.create_task(store.messages.append(new_message(), allow))
                for _ in range(1000)
            ]
            await asyncio.sleep(0)
            scope.cancel()
            await anyio.sleep_forever()
    assert all(write.done() for write in writes)
    assert {(await write).seq for write in writes} == set(range(1, 1001))
    with pytest.raises(Unavailable):
        await store.maintenance.ping()


async def test_a_thousand_cancelled_calls_leave_the_store_as_quick_as_before(
    store: Store,
) -> None:
    """Each is cancelled at another moment: waiting, under way, just done."""
    await add_session(store)
    for index in range(1000):
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_later(index % 20 * 0.0001, scope.cancel)
            await store.messages.list_visible("session_1", ALICE, ALL, allow)
    async with asyncio.timeout(5):
        await asyncio.gather(*(store.sessions.get("session_1") for _ in range(200)))


@pytest.mark.parametrize("url", ["mysql://host/db", "nonsense"])
async def test_an_unknown_kind_of_store_is_refused(settings: Settings, url: str) -> None:
    unknown = settings.model_copy(update={"database_url": url})
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        async with open_storage(unknown):
            pass


async def test_a_store_has_every_method_of_the_protocol(store: Store) -> None:
    for name, promised in inspect.getmembers(Store, inspect.isfunction):
        if not name.startswith("_"):
            kept = inspect.signature(getattr(type(store), name))
            assert kept == inspect.signature(promised), name
