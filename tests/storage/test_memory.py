"""The contract of storage/base.py: memory."""

from __future__ import annotations

import asyncio

import pytest

from shared_context_server.errors import (
    Conflict,
    MemoryNotFound,
    SessionClosed,
    SessionNotFound,
)
from shared_context_server.models import Access, MemoryAddress, MemoryEntry
from shared_context_server.storage import Storage
from shared_context_server.storage.base import AuditQuery, MemoryUpdate, MemoryWrite, SessionGuard
from tests.storage.builders import (
    ALICE,
    BOB,
    NOON,
    Refusal,
    add_message,
    add_session,
    address,
    allow,
    at,
    make_audit,
    put,
    refuse,
    writer_guard,
)


async def write(
    storage: Storage, place: MemoryAddress, update: MemoryUpdate, *, seconds: float = 0
) -> MemoryEntry:
    guard = allow if place.session_id else None
    written = await storage.write_memory(place, ALICE, update, now=at(seconds), guard=guard)
    return written.entry


async def get(storage: Storage, place: MemoryAddress, *, seconds: float = 0) -> MemoryEntry:
    guard = allow if place.session_id else None
    return await storage.get_memory(place, now=at(seconds), guard=guard)


async def delete(storage: Storage, place: MemoryAddress, *, seconds: float = 0) -> None:
    await storage.delete_memory(
        place, lambda entry: None, now=at(seconds), guard=None, audit=make_audit("forgotten")
    )


async def list_keys(
    storage: Storage,
    *,
    prefix: str = "",
    after_key: str | None = None,
    limit: int = 1000,
    seconds: float = 0,
) -> list[str]:
    page = await storage.list_memory(
        session_id=None,
        owner=None,
        prefix=prefix,
        limit=limit,
        after_key=after_key,
        now=at(seconds),
        guard=None,
    )
    return [entry.address.key for entry in page.items]


# Values and versions


@pytest.mark.parametrize(
    "value",
    [
        None,
        False,
        0,
        -0.5,
        1e300,
        2**80,
        "",
        "Grüße 🚀\x00\\\"'",
        [],
        {},
        {"z": [1, {"y": [None]}], "a": 1},
        "x" * 200_000,
    ],
    ids=lambda value: str(value)[:12],
)
async def test_a_value_comes_back_equal(storage: Storage, value: object) -> None:
    written = await write(storage, address("k"), put(value))
    found = await get(storage, address("k"))
    assert found == written
    assert found.value == value
    assert type(found.value) is type(value)


async def test_a_value_that_an_append_made_deeper_than_a_request_may_be_can_be_read(
    storage: Storage,
) -> None:
    deepest: list[object] = []
    for _ in range(200):
        deepest = [deepest]
    await write(storage, address("k"), put([deepest]))
    assert (await get(storage, address("k"))).value == [deepest]


async def test_object_keys_keep_their_order(storage: Storage) -> None:
    await write(storage, address("k"), put({"z": 1, "a": 2, "m": 3}, y=1, b=2))
    entry = await get(storage, address("k"))
    assert isinstance(entry.value, dict)
    assert list(entry.value) == ["z", "a", "m"]
    assert list(entry.metadata) == ["y", "b"]


async def test_versions_count_writes_and_the_first_time_stays(storage: Storage) -> None:
    place = address("k")
    first = await write(storage, place, put("a", note=1), seconds=1)
    assert first == MemoryEntry(place, "a", 1, {"note": 1}, at(1), at(1), "alice", None)
    second = await storage.write_memory(
        place, BOB, put("b", expires_at=at(9)), now=at(2), guard=None
    )
    expected = MemoryEntry(place, "b", 2, {}, at(1), at(2), "bob", at(9))
    assert second.entry == expected
    assert not second.duplicate
    assert await get(storage, place, seconds=3) == expected


async def test_places_are_apart(storage: Storage) -> None:
    await add_session(storage)
    places = [
        address("k", session_id=session_id, owner=owner)
        for session_id in (None, "session_1")
        for owner in (None, "alice", "bob")
    ]
    for index, place in enumerate(places):
        await write(storage, place, put(index))
    for index, place in enumerate(places):
        entry = await get(storage, place)
        assert (entry.address, entry.value, entry.version) == (place, index, 1)


async def test_an_update_sees_the_current_entry(storage: Storage) -> None:
    seen: list[MemoryEntry | None] = []

    def update(current: MemoryEntry | None) -> MemoryWrite:
        seen.append(current)
        return MemoryWrite("x", {}, None)

    first = await write(storage, address("k"), update)
    await write(storage, address("k"), update)
    assert seen == [None, first]


async def test_concurrent_updates_are_all_applied(storage: Storage) -> None:
    def increment(current: MemoryEntry | None) -> MemoryWrite:
        count = current.value if current else 0
        assert isinstance(count, int)
        return MemoryWrite(count + 1, {}, None)

    entries = await asyncio.gather(
        *(write(storage, address("counter"), increment) for _ in range(200))
    )
    assert sorted(entry.version for entry in entries) == list(range(1, 201))
    assert all(entry.value == entry.version for entry in entries)
    assert (await get(storage, address("counter"))).value == 200


async def test_an_update_that_raises_changes_nothing(storage: Storage) -> None:
    def conflict(current: MemoryEntry | None) -> MemoryWrite:
        raise Conflict("no", field="expected_version")

    await write(storage, address("k"), put(1))
    with pytest.raises(Conflict) as caught:
        await write(storage, address("k"), conflict)
    assert caught.value.details["field"] == "expected_version"
    assert (await get(storage, address("k"))).version == 1


# Expiry


async def test_an_expired_entry_is_missing_at_once(storage: Storage) -> None:
    await write(storage, address("k"), put(1, expires_at=at(10)))
    assert (await get(storage, address("k"), seconds=9.999999)).value == 1
    assert await list_keys(storage, seconds=9.999999) == ["k"]
    with pytest.raises(MemoryNotFound) as caught:
        await get(storage, address("k"), seconds=10)
    assert caught.value.details["key"] == "k"
    assert await list_keys(storage, seconds=10) == []
    with pytest.raises(MemoryNotFound):
        await delete(storage, address("k"), seconds=10)


async def test_an_expired_entry_counts_as_missing_for_a_writer(storage: Storage) -> None:
    seen: list[MemoryEntry | None] = []

    def update(current: MemoryEntry | None) -> MemoryWrite:
        seen.append(current)
        return MemoryWrite("new", {}, None)

    await write(storage, address("k"), put(1, expires_at=at(10)))
    await write(storage, address("k"), put(2, expires_at=at(10)), seconds=1)
    entry = await write(storage, address("k"), update, seconds=10)
    assert seen == [None]
    assert (entry.version, entry.created_at) == (1, at(10))
    assert await get(storage, address("k"), seconds=99) == entry


# Listing


async def test_listings_tell_all_but_the_value(storage: Storage) -> None:
    place = address("k", owner="alice")
    await write(storage, place, put("é🚀", expires_at=at(9), note="n"), seconds=1)
    await write(storage, place, put("é🚀", expires_at=at(9), note="n"), seconds=2)
    page = await storage.list_memory(
        session_id=None,
        owner="alice",
        prefix="",
        limit=5,
        after_key=None,
        now=at(3),
        guard=None,
    )
    (entry,) = page.items
    assert (entry.address, entry.version, entry.metadata) == (place, 2, {"note": "n"})
    assert (entry.created_at, entry.updated_at, entry.expires_at) == (at(1), at(2), at(9))
    assert (entry.updated_by, entry.size_bytes) == ("alice", len('"é🚀"'.encode()))


async def test_a_listing_is_of_one_place(storage: Storage) -> None:
    await add_session(storage)
    for session_id in (None, "session_1"):
        for owner in (None, "alice"):
            key = f"{session_id} {owner}"
            await write(storage, address(key, session_id=session_id, owner=owner), put(1))
    for session_id, guard in ((None, None), ("session_1", allow)):
        for owner in (None, "alice"):
            page = await storage.list_memory(
                session_id=session_id,
                owner=owner,
                prefix="",
                limit=9,
                after_key=None,
                now=NOON,
                guard=guard,
            )
            (entry,) = page.items
            assert entry.address == address(
                f"{session_id} {owner}", session_id=session_id, owner=owner
            )


KEYS = [
    "A",
    "B",
    "a",
    "a%",
    "a%b",
    "a*",
    "aXb",
    "a\U0010ffff",
    "a\U0010ffffz",
    "a_",
    "a_b",
    "ab",
    "b",
    "é",
    "\ud7ff",
    "\ud7ffz",
    "\ue000",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "\U0010ffff\U0010ffff",
]


@pytest.mark.parametrize(
    "prefix", ["", "a", "A", "a%", "a_", "a\U0010ffff", "\ud7ff", "\U0010ffff"]
)
async def test_keys_are_listed_by_literal_prefix_in_code_point_order(
    storage: Storage, prefix: str
) -> None:
    for key in KEYS:
        await write(storage, address(key), put(1))
    expected = sorted(key for key in KEYS if key.startswith(prefix))
    assert await list_keys(storage, prefix=prefix) == expected
    for start in KEYS:
        behind = [key for key in expected if key > start]
        assert await list_keys(storage, prefix=prefix, after_key=start) == behind
        assert await list_keys(storage, prefix=prefix, after_key=start, limit=2) == behind[:2]


# Deleting


async def test_a_deleted_entry_is_gone_and_audited(storage: Storage) -> None:
    await write(storage, address("k"), put(1))
    await delete(storage, address("k"))
    with pytest.raises(MemoryNotFound):
        await get(storage, address("k"))
    with pytest.raises(MemoryNotFound):
        await delete(storage, address("k"))
    assert len(await storage.list_audit(AuditQuery(limit=9, event_type="forgotten"))) == 1
    assert (await write(storage, address("k"), put(2))).version == 1


async def test_a_check_that_raises_keeps_the_entry(storage: Storage) -> None:
    written = await write(storage, address("k"), put(1))

    def check(entry: MemoryEntry) -> None:
        assert entry == written
        raise Conflict("no")

    with pytest.raises(Conflict):
        await storage.delete_memory(
            address("k"), check, now=NOON, guard=None, audit=make_audit("forgotten")
        )
    assert await get(storage, address("k")) == written
    assert await storage.list_audit(AuditQuery(limit=9, event_type="forgotten")) == []


# Guards


async def test_memory_of_a_session_is_guarded(storage: Storage) -> None:
    await add_session(storage)
    place = address("k", session_id="session_1")
    await write(storage, place, put(1))
    for call in (
        storage.write_memory(place, ALICE, put(2), now=NOON, guard=refuse),
        storage.get_memory(place, now=NOON, guard=refuse),
        storage.list_memory(
            session_id="session_1",
            owner=None,
            prefix="",
            limit=9,
            after_key=None,
            now=NOON,
            guard=refuse,
        ),
        storage.delete_memory(
            place, lambda entry: None, now=NOON, guard=refuse, audit=make_audit()
        ),
    ):
        with pytest.raises(Refusal):
            await call
    assert (await get(storage, place)).value == 1


# Idempotency


async def test_a_repeated_write_happens_once_and_answers_the_same(storage: Storage) -> None:
    first = await storage.write_memory(
        address("k"),
        ALICE,
        put("a", expires_at=at(50), note="a"),
        now=at(1),
        guard=None,
        idempotency_key="once",
        fingerprint="f",
    )
    later = await write(storage, address("k"), put("b"), seconds=2)
    again = await storage.write_memory(
        address("k"),
        ALICE,
        put("a"),
        now=at(3),
        guard=None,
        idempotency_key="once",
        fingerprint="f",
    )
    assert not first.duplicate
    assert again.duplicate
    assert (again.entry.address, again.entry.version) == (address("k"), 1)
    assert (again.entry.metadata, again.entry.updated_by) == ({"note": "a"}, "alice")
    assert (again.entry.created_at, again.entry.updated_at) == (at(1), at(1))
    assert again.entry.expires_at == at(50)
    assert await get(storage, address("k"), seconds=3) == later


async def test_an_idempotency_key_of_another_write_conflicts(storage: Storage) -> None:
    await add_session(storage)
    place = address("k", session_id="session_1")

    async def write_with(fingerprint: str) -> None:
        await storage.write_memory(
            place,
            ALICE,
            put(1),
            now=NOON,
            guard=allow,
            idempotency_key="once",
            fingerprint=fingerprint,
        )

    await write_with("f")
    with pytest.raises(Conflict) as caught:
        await write_with("g")
    assert caught.value.details["field"] == "idempotency_key"
    # One key does not serve a message and a memory entry.
    with pytest.raises(Conflict):
        await add_message(storage, idempotency_key="once", fingerprint="f")
    assert (await get(storage, place)).version == 1


async def test_a_repeated_write_is_guarded_but_for_the_closing_of_the_session(
    storage: Storage,
) -> None:
    await add_session(storage, access=Access.INVITED, invited=("bob",))
    place = address("k", session_id="session_1")

    async def write_once(guard: SessionGuard) -> bool:
        written = await storage.write_memory(
            place,
            ALICE,
            put(1),
            now=NOON,
            guard=guard,
            idempotency_key="once",
        )
        return written.duplicate

    assert not await write_once(writer_guard(ALICE))
    await storage.close_session("session_1", NOON, allow, make_audit())
    assert await write_once(writer_guard(ALICE))
    with pytest.raises(Refusal):
        await write_once(refuse)
    with pytest.raises(SessionClosed):
        await storage.write_memory(place, BOB, put(1), now=NOON, guard=writer_guard(BOB))
    with pytest.raises(SessionNotFound):
        await storage.write_memory(
            address("k", session_id="session_0"),
            ALICE,
            put(1),
            now=NOON,
            guard=allow,
            idempotency_key="once",
        )
