"""The contract of storage/contract: memory."""

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
from shared_context_server.storage import Store
from shared_context_server.storage.contract import (
    AuditQuery,
    MemoryUpdate,
    MemoryWrite,
    SessionGuard,
)
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
    store: Store, place: MemoryAddress, update: MemoryUpdate, *, seconds: float = 0
) -> MemoryEntry:
    guard = allow if place.session_id else None
    written = await store.memory.write(place, ALICE, update, now=at(seconds), guard=guard)
    return written.entry


async def get(store: Store, place: MemoryAddress, *, seconds: float = 0) -> MemoryEntry:
    guard = allow if place.session_id else None
    return await store.memory.get(place, now=at(seconds), guard=guard)


async def delete(store: Store, place: MemoryAddress, *, seconds: float = 0) -> None:
    await store.memory.delete(
        place, lambda entry: None, now=at(seconds), guard=None, audit=make_audit("forgotten")
    )


async def list_keys(
    store: Store,
    *,
    prefix: str = "",
    after_key: str | None = None,
    limit: int = 1000,
    seconds: float = 0,
) -> list[str]:
    page = await store.memory.list_entries(
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
async def test_a_value_comes_back_equal(store: Store, value: object) -> None:
    written = await write(store, address("k"), put(value))
    found = await get(store, address("k"))
    assert found == written
    assert found.value == value
    assert type(found.value) is type(value)


async def test_a_value_that_an_append_made_deeper_than_a_request_may_be_can_be_read(
    store: Store,
) -> None:
    deepest: list[object] = []
    for _ in range(200):
        deepest = [deepest]
    await write(store, address("k"), put([deepest]))
    assert (await get(store, address("k"))).value == [deepest]


async def test_object_keys_keep_their_order(store: Store) -> None:
    await write(store, address("k"), put({"z": 1, "a": 2, "m": 3}, y=1, b=2))
    entry = await get(store, address("k"))
    assert isinstance(entry.value, dict)
    assert list(entry.value) == ["z", "a", "m"]
    assert list(entry.metadata) == ["y", "b"]


async def test_versions_count_writes_and_the_first_time_stays(store: Store) -> None:
    place = address("k")
    first = await write(store, place, put("a", note=1), seconds=1)
    assert first == MemoryEntry(place, "a", 1, {"note": 1}, at(1), at(1), "alice", None)
    second = await store.memory.write(place, BOB, put("b", expires_at=at(9)), now=at(2), guard=None)
    expected = MemoryEntry(place, "b", 2, {}, at(1), at(2), "bob", at(9))
    assert second.entry == expected
    assert not second.duplicate
    assert await get(store, place, seconds=3) == expected


async def test_places_are_apart(store: Store) -> None:
    await add_session(store)
    places = [
        address("k", session_id=session_id, owner=owner)
        for session_id in (None, "session_1")
        for owner in (None, "alice", "bob")
    ]
    for index, place in enumerate(places):
        await write(store, place, put(index))
    for index, place in enumerate(places):
        entry = await get(store, place)
        assert (entry.address, entry.value, entry.version) == (place, index, 1)


async def test_an_update_sees_the_current_entry(store: Store) -> None:
    seen: list[MemoryEntry | None] = []

    def update(current: MemoryEntry | None) -> MemoryWrite:
        seen.append(current)
        return MemoryWrite("x", {}, None)

    first = await write(store, address("k"), update)
    await write(store, address("k"), update)
    assert seen == [None, first]


async def test_concurrent_updates_are_all_applied(store: Store) -> None:
    def increment(current: MemoryEntry | None) -> MemoryWrite:
        count = current.value if current else 0
        assert isinstance(count, int)
        return MemoryWrite(count + 1, {}, None)

    entries = await asyncio.gather(
        *(write(store, address("counter"), increment) for _ in range(200))
    )
    assert sorted(entry.version for entry in entries) == list(range(1, 201))
    assert all(entry.value == entry.version for entry in entries)
    assert (await get(store, address("counter"))).value == 200


async def test_an_update_that_raises_changes_nothing(store: Store) -> None:
    def conflict(current: MemoryEntry | None) -> MemoryWrite:
        raise Conflict("no", field="expected_version")

    await write(store, address("k"), put(1))
    with pytest.raises(Conflict) as caught:
        await store.memory.write(
            address("k"), ALICE, conflict, now=NOON, guard=None, audit=make_audit("edited")
        )
    assert caught.value.details["field"] == "expected_version"
    assert await store.audit.list_newest(AuditQuery(limit=9, event_type="edited")) == []
    assert (await get(store, address("k"))).version == 1


# Expiry


async def test_an_expired_entry_is_missing_at_once(store: Store) -> None:
    await write(store, address("k"), put(1, expires_at=at(10)))
    assert (await get(store, address("k"), seconds=9.999999)).value == 1
    assert await list_keys(store, seconds=9.999999) == ["k"]
    with pytest.raises(MemoryNotFound) as caught:
        await get(store, address("k"), seconds=10)
    assert caught.value.details["key"] == "k"
    assert await list_keys(store, seconds=10) == []
    with pytest.raises(MemoryNotFound):
        await delete(store, address("k"), seconds=10)


async def test_an_expired_entry_counts_as_missing_for_a_writer(store: Store) -> None:
    seen: list[MemoryEntry | None] = []

    def update(current: MemoryEntry | None) -> MemoryWrite:
        seen.append(current)
        return MemoryWrite("new", {}, None)

    await write(store, address("k"), put(1, expires_at=at(10)))
    await write(store, address("k"), put(2, expires_at=at(10)), seconds=1)
    entry = await write(store, address("k"), update, seconds=10)
    assert seen == [None]
    assert (entry.version, entry.created_at) == (1, at(10))
    assert await get(store, address("k"), seconds=99) == entry


# Listing


async def test_listings_tell_all_but_the_value(store: Store) -> None:
    place = address("k", owner="alice")
    await write(store, place, put("é🚀", expires_at=at(9), note="n"), seconds=1)
    await write(store, place, put("é🚀", expires_at=at(9), note="n"), seconds=2)
    page = await store.memory.list_entries(
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


async def test_a_listing_is_of_one_place(store: Store) -> None:
    await add_session(store)
    for session_id in (None, "session_1"):
        for owner in (None, "alice"):
            key = f"{session_id} {owner}"
            await write(store, address(key, session_id=session_id, owner=owner), put(1))
    for session_id, guard in ((None, None), ("session_1", allow)):
        for owner in (None, "alice"):
            page = await store.memory.list_entries(
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
    store: Store, prefix: str
) -> None:
    for key in KEYS:
        await write(store, address(key), put(1))
    expected = sorted(key for key in KEYS if key.startswith(prefix))
    assert await list_keys(store, prefix=prefix) == expected
    for start in KEYS:
        behind = [key for key in expected if key > start]
        assert await list_keys(store, prefix=prefix, after_key=start) == behind
        assert await list_keys(store, prefix=prefix, after_key=start, limit=2) == behind[:2]


# Deleting


async def test_a_deleted_entry_is_gone_and_audited(store: Store) -> None:
    await write(store, address("k"), put(1))
    await delete(store, address("k"))
    with pytest.raises(MemoryNotFound):
        await get(store, address("k"))
    with pytest.raises(MemoryNotFound):
        await delete(store, address("k"))
    assert len(await store.audit.list_newest(AuditQuery(limit=9, event_type="forgotten"))) == 1
    assert (await write(store, address("k"), put(2))).version == 1


async def test_a_check_that_raises_keeps_the_entry(store: Store) -> None:
    written = await write(store, address("k"), put(1))

    def check(entry: MemoryEntry) -> None:
        assert entry == written
        raise Conflict("no")

    with pytest.raises(Conflict):
        await store.memory.delete(
            address("k"), check, now=NOON, guard=None, audit=make_audit("forgotten")
        )
    assert await get(store, address("k")) == written
    assert await store.audit.list_newest(AuditQuery(limit=9, event_type="forgotten")) == []


# Guards


async def test_memory_of_a_session_is_guarded(store: Store) -> None:
    await add_session(store)
    place = address("k", session_id="session_1")
    await write(store, place, put(1))
    for call in (
        store.memory.write(place, ALICE, put(2), now=NOON, guard=refuse),
        store.memory.get(place, now=NOON, guard=refuse),
        store.memory.list_entries(
            session_id="session_1",
            owner=None,
            prefix="",
            limit=9,
            after_key=None,
            now=NOON,
            guard=refuse,
        ),
        store.memory.delete(place, lambda entry: None, now=NOON, guard=refuse, audit=make_audit()),
    ):
        with pytest.raises(Refusal):
            await call
    assert (await get(store, place)).value == 1


# Idempotency


async def test_a_repeated_write_happens_once_and_answers_the_same(store: Store) -> None:
    first = await store.memory.write(
        address("k"),
        ALICE,
        put("a", expires_at=at(50), note="a"),
        now=at(1),
        guard=None,
        idempotency_key="once",
        fingerprint="f",
        audit=make_audit("edited"),
    )
    later = await write(store, address("k"), put("b"), seconds=2)
    again = await store.memory.write(
        address("k"),
        ALICE,
        put("a"),
        now=at(3),
        guard=None,
        idempotency_key="once",
        fingerprint="f",
        audit=make_audit("edited"),
    )
    audited = await store.audit.list_newest(AuditQuery(limit=9, event_type="edited"))
    assert len(audited) == 1
    assert not first.duplicate
    assert again.duplicate
    assert (again.entry.address, again.entry.version) == (address("k"), 1)
    assert (again.entry.metadata, again.entry.updated_by) == ({"note": "a"}, "alice")
    assert (again.entry.created_at, again.entry.updated_at) == (at(1), at(1))
    assert again.entry.expires_at == at(50)
    assert await get(store, address("k"), seconds=3) == later


async def test_an_idempotency_key_of_another_write_conflicts(store: Store) -> None:
    await add_session(store)
    place = address("k", session_id="session_1")

    async def write_with(fingerprint: str) -> None:
        await store.memory.write(
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
        await add_message(store, idempotency_key="once", fingerprint="f")
    assert (await get(store, place)).version == 1


async def test_a_repeated_write_is_guarded_but_for_the_closing_of_the_session(
    store: Store,
) -> None:
    await add_session(store, access=Access.INVITED, invited=("bob",))
    place = address("k", session_id="session_1")

    async def write_once(guard: SessionGuard) -> bool:
        written = await store.memory.write(
            place,
            ALICE,
            put(1),
            now=NOON,
            guard=guard,
            idempotency_key="once",
        )
        return written.duplicate

    assert not await write_once(writer_guard(ALICE))
    await store.sessions.close("session_1", NOON, allow, make_audit())
    assert await write_once(writer_guard(ALICE))
    with pytest.raises(Refusal):
        await write_once(refuse)
    with pytest.raises(SessionClosed):
        await store.memory.write(place, BOB, put(1), now=NOON, guard=writer_guard(BOB))
    with pytest.raises(SessionNotFound):
        await store.memory.write(
            address("k", session_id="session_0"),
            ALICE,
            put(1),
            now=NOON,
            guard=allow,
            idempotency_key="once",
        )


async def test_all_entries_are_listed_in_pages_once(store: Store) -> None:
    await add_session(store, "session_1")
    await add_session(store, "session_2")
    places = [
        MemoryAddress(key, session_id, owner)
        for key in ("a", "b")
        for session_id in (None, "session_1", "session_2")
        for owner in (None, "alice", "bob")
    ]
    for number, place in enumerate(places):
        guard = None if place.session_id is None else allow
        await store.memory.write(place, ALICE, put(number), now=NOON, guard=guard)
    gone = MemoryAddress("gone", None, None)
    expired = MemoryWrite(value=1, metadata={}, expires_at=at(1))
    await store.memory.write(gone, ALICE, lambda _: expired, now=NOON, guard=None)
    listed: dict[MemoryAddress, object] = {}
    after = None
    while page := await store.memory.list_all(after=after, limit=4, now=at(2)):
        assert len(page) <= 4
        listed |= {entry.address: entry.value for entry in page}
        after = page[-1].address
    assert listed == {place: number for number, place in enumerate(places)}
    (first,) = await store.memory.list_all(after=None, limit=1, now=NOON)
    assert first == await store.memory.get(first.address, now=NOON, guard=None)
