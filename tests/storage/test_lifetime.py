"""The contract of storage/base.py: opening, closing, answering."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import anyio
import pytest

from shared_context_server.errors import ConfigurationError, Unavailable
from shared_context_server.settings import Settings
from shared_context_server.storage import Storage, open_storage
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


async def test_a_store_that_works_answers_a_ping(storage: Storage) -> None:
    await storage.ping()


async def test_what_was_written_is_there_after_reopening(any_settings: Settings) -> None:
    async with open_storage(any_settings) as storage:
        session = await add_session(storage)
    async with open_storage(any_settings) as storage:
        assert await storage.get_session("session_1") == session
        assert (await add_message(storage)).seq == 1


async def test_two_stores_on_one_database_see_each_others_writes(any_settings: Settings) -> None:
    async with open_storage(any_settings) as one, open_storage(any_settings) as other:
        await add_session(one)
        for index in range(20):
            writer, reader = (one, other) if index % 2 else (other, one)
            added = await add_message(writer)
            assert added.seq == index + 1
            assert (await reader.get_session("session_1")).last_seq == added.seq


async def test_closing_finishes_the_writes_under_way(any_settings: Settings) -> None:
    async with open_storage(any_settings) as storage:
        await add_session(storage)
        writes = [
            asyncio.create_task(storage.add_message(new_message(), allow)) for _ in range(300)
        ]
        reads = [
            asyncio.create_task(storage.list_messages("session_1", ALICE, ALL, allow))
            for _ in range(50)
        ]
        await asyncio.sleep(0)  # all of them have begun
        await storage.aclose()
        assert {(await write).seq for write in writes} == set(range(1, 301))
        assert len([await read for read in reads]) == 50
    async with open_storage(any_settings) as storage:
        assert (await storage.get_session("session_1")).last_seq == 300


async def test_a_closed_store_is_unavailable_to_every_call(any_settings: Settings) -> None:
    async with open_storage(any_settings) as storage:
        await add_session(storage)
        await storage.aclose()
        await storage.aclose()  # again is no error
    place = address("k")
    audit = make_audit()
    calls: dict[str, tuple[Any, ...]] = {
        "ping": (),
        "create_session": (new_session("s"), audit),
        "get_session": ("session_1",),
        "delete_session": ("session_1", allow, audit),
        "add_message": (new_message(), allow),
        "list_messages": ("session_1", ALICE, ALL, allow),
        "set_cursor": ("session_1", ALICE, 0, allow),
        "list_keys": (),
        "add_audit": (audit,),
    }
    for name, arguments in calls.items():
        with pytest.raises(Unavailable):
            await getattr(storage, name)(*arguments)
    with pytest.raises(Unavailable):
        await storage.write_memory(place, ALICE, put(1), now=NOON, guard=None)


async def test_a_cancelled_server_still_finishes_its_writes_and_closes(
    any_settings: Settings,
) -> None:
    with anyio.CancelScope() as scope:
        async with open_storage(any_settings) as storage:
            await add_session(storage)
            writes = [
                asyncio.create_task(storage.add_message(new_message(), allow)) for _ in range(1000)
            ]
            await asyncio.sleep(0)
            scope.cancel()
            await anyio.sleep_forever()
    assert all(write.done() for write in writes)
    assert {(await write).seq for write in writes} == set(range(1, 1001))
    with pytest.raises(Unavailable):
        await storage.ping()


async def test_a_thousand_cancelled_calls_leave_the_store_as_quick_as_before(
    storage: Storage,
) -> None:
    """Each is cancelled at another moment: waiting, under way, just done."""
    await add_session(storage)
    for index in range(1000):
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_later(index % 20 * 0.0001, scope.cancel)
            await storage.list_messages("session_1", ALICE, ALL, allow)
    async with asyncio.timeout(5):
        await asyncio.gather(*(storage.get_session("session_1") for _ in range(200)))


@pytest.mark.parametrize("url", ["mysql://host/db", "nonsense"])
async def test_an_unknown_kind_of_store_is_refused(settings: Settings, url: str) -> None:
    unknown = settings.model_copy(update={"database_url": url})
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        async with open_storage(unknown):
            pass


async def test_a_store_has_every_method_of_the_protocol(storage: Storage) -> None:
    for name, promised in inspect.getmembers(Storage, inspect.isfunction):
        if not name.startswith("_"):
            kept = inspect.signature(getattr(type(storage), name))
            assert kept == inspect.signature(promised), name
