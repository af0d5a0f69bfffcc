"""Copying a store: what the copy is, what is refused, what doing it again does."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from shared_context_server.services.moving import (
    DestinationDiffers,
    Moved,
    SnapshotSource,
    copy_store,
    move,
)
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_copier, open_storage
from shared_context_server.storage.codec import Row
from shared_context_server.storage.contract import MessageQuery
from shared_context_server.storage.sqlite.engine.connections import database_path
from shared_context_server.storage.transfer.copying import Copier, RecordRefused
from shared_context_server.storage.transfer.lines import replace_nul, to_line
from shared_context_server.storage.transfer.records import (
    KINDS,
    LEASE,
    MEMORY,
    MESSAGE,
    SESSION,
    RecordKind,
)
from tests.postgres import DatabaseServer
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    NOON,
    add_message,
    add_session,
    address,
    allow,
    at,
    list_seqs,
    make_audit,
    put,
)
from tests.storage.filled import CREDENTIAL, KEY, fill


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class RecordedProgress:
    """A ProgressListener that remembers."""

    stages: list[str] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    def begin(self, stage: str, total: int | None) -> None:
        self.stages.append(stage)

    def advance(self, count: int) -> None:
        self.done[self.stages[-1]] = self.done.get(self.stages[-1], 0) + count


def store_at(path: Path) -> Settings:
    return Settings(data_dir=path, database_url=None)


@pytest.fixture
def source(tmp_path: Path) -> Settings:
    return store_at(tmp_path / "source")


@pytest.fixture
def destination(tmp_path: Path) -> Settings:
    return store_at(tmp_path / "destination")


@asynccontextmanager
async def filled(settings: Settings) -> AsyncIterator[Store]:
    async with open_storage(settings) as store:
        await fill(store)
        yield store


async def copy(
    source: Settings, destination: Settings, progress: RecordedProgress | None = None
) -> Moved:
    async with (
        open_copier(source, read_only=True) as origin,
        open_copier(destination, read_only=False) as copier,
    ):
        return await copy_store(origin, copier, progress or RecordedProgress())


async def read_lines(settings: Settings) -> list[bytes]:
    async with open_copier(settings, read_only=True) as copier:
        return [
            to_line(kind, row)
            for kind in KINDS
            for row in await copier.read_rows(kind, limit=100_000)
        ]


# What the copy is


async def test_a_copy_holds_all_and_nothing_else(source: Settings, destination: Settings) -> None:
    async with filled(source):
        moved = await copy(source, destination)
    assert moved.is_equal
    assert await read_lines(destination) == await read_lines(source)
    counts = {comparison.kind: comparison.source.count for comparison in moved.comparisons}
    assert all(counts.values())
    assert moved.written == sum(counts.values()) - 1  # writing the audit log has set its counter


async def test_a_copy_goes_on_where_the_source_was(source: Settings, destination: Settings) -> None:
    async with filled(source) as old:
        await copy(source, destination)
        async with open_storage(destination) as new:
            for caller in (ALICE, BOB, CAROL, ADMIN):
                assert await list_seqs(new, caller, "open") == await list_seqs(old, caller, "open")
                query = MessageQuery(limit=2, is_counted=True)
                pages = [
                    await s.messages.list_visible("open", caller, query, allow) for s in (old, new)
                ]
                assert pages[0] == pages[1]
            again = await add_message(
                new, "open", content="x", idempotency_key="once", fingerprint="f"
            )
            assert (again.id, again.seq, again.duplicate) == (1, 1, True)
            assert await new.sessions.get_cursor("open", "bob") == 2
            assert await new.credentials.find_by_handle(CREDENTIAL.handle_hash) == CREDENTIAL
            assert await new.credentials.list_keys() == await old.credentials.list_keys()
            assert KEY in await new.credentials.list_keys()
            for store in (old, new):
                retaken = await store.leases.acquire(
                    None, "free", BOB, ttl=timedelta(60), now=at(5), guard=None
                )
                assert retaken.lease.fencing_token == 4
            # The id of the newest message was that of a session which is gone.
            assert (await add_message(new, "open")).id == (await add_message(old, "open")).id == 15


async def test_a_store_comes_back_from_postgresql_unchanged(
    source: Settings, destination: Settings, postgres: DatabaseServer
) -> None:
    async with filled(source):
        with postgres.new_database() as values:
            between = Settings(data_dir=destination.data_dir, **values)
            there = await copy(source, between)
            back = await copy(between, destination)
    assert (there.is_equal, back.is_equal) == (True, True)
    assert await read_lines(destination) == await read_lines(source)


async def test_a_log_that_begins_later_is_copied_so_and_goes_on(
    source: Settings, destination: Settings, postgres: DatabaseServer, tmp_path: Path
) -> None:
    """From SQLite over PostgreSQL to SQLite: what it counts there, the next seq and the next expiry."""
    async with open_storage(source) as old:
        await add_session(old)
        for number in range(9):
            await add_message(old, sender=(ALICE, BOB)[number % 2], created_at=at(number))
        await old.sessions.set_cursor("session_1", BOB, 2, allow)
        await expire(old, 4)
    with postgres.new_database() as found:
        between = Settings(data_dir=tmp_path / "between", **found)
        assert (await copy(source, between)).is_equal
        assert (await copy(between, destination)).is_equal
        assert (await copy(source, destination)).written == 0
        assert await read_lines(destination) == await read_lines(source)
        for settings in (between, destination):
            async with open_storage(settings) as new:
                assert await list_seqs(new, ALICE) == [5, 6, 7, 8, 9]
                for caller in (BOB, ADMIN):
                    summary = await new.sessions.summarize("session_1", caller, allow)
                    assert summary.session.first_seq == 5
                    assert summary.message_count == 5
                assert (await new.sessions.summarize("session_1", BOB, allow)).unread == 3
                assert await new.expiry.get_removed_id("session_1") == 4
                assert (await add_message(new)).seq == 10
                await expire(new, 6)
                assert await list_seqs(new, ADMIN) == [7, 8, 9, 10]
    async with open_storage(source) as old:
        await expire(old, 5)
    fresh = store_at(tmp_path / "fresh")
    await copy(source, fresh)
    async with open_storage(source) as old:
        await expire(old, 6)
    with pytest.raises(DestinationDiffers, match="message id=6"):
        await copy(source, fresh)


async def expire(store: Store, seconds: int) -> None:
    step = await store.expiry.remove_some("session_1", at(seconds), lambda *_: make_audit())
    assert (step.removed > 0, step.has_more) == (True, False)


async def test_copying_tells_how_far_it_is(source: Settings, destination: Settings) -> None:
    progress = RecordedProgress()
    async with filled(source):
        moved = await copy(source, destination, progress)
        total = sum(comparison.source.count for comparison in moved.comparisons)
        assert progress.done == {"copying": total, "verifying": total}
        again = RecordedProgress()
        assert (await copy(source, destination, again)).written == 0
    assert again.stages == ["comparing", "copying", "verifying"]
    assert again.done["comparing"] == total


# Doing it again


async def test_a_copy_that_was_broken_off_is_completed(
    source: Settings, destination: Settings
) -> None:
    async with filled(source):
        lines = await read_lines(source)
        async with (
            open_copier(source, read_only=True) as origin,
            open_copier(destination, read_only=False) as copier,
        ):
            await copier.write_rows(SESSION, await origin.read_rows(SESSION, limit=100), [])
            await copier.write_rows(MESSAGE, await origin.read_rows(MESSAGE, limit=3), [])
        moved = await copy(source, destination)
    assert moved.is_equal
    assert moved.written == len(lines) - 6 - 1  # the counter, as above
    assert await read_lines(destination) == lines


async def test_what_is_new_at_the_source_is_copied_next_time(
    source: Settings, destination: Settings
) -> None:
    async with filled(source) as old:
        await copy(source, destination)
        await add_message(old, "open")
        await old.sessions.set_cursor("open", BOB, 5, allow)
        await old.sessions.close("open", at(20), allow, make_audit("closed"))
        await old.credentials.revoke_family("jti_1", at(21), make_audit("revoked"))
        await old.memory.write(address("a"), ALICE, put(3), now=at(22), guard=None)
        await old.leases.acquire(None, "free", BOB, ttl=timedelta(9), now=at(23), guard=None)
        moved = await copy(source, destination)
    assert moved.is_equal
    # The message, two audit entries and their chain; cursor, session, credential, memory, lease.
    assert moved.written == 9
    assert await read_lines(destination) == await read_lines(source)


# What is refused


async def add_stranger(store: Store) -> None:
    await add_session(store, "stranger")


async def add_early_stranger(store: Store) -> None:
    await store.memory.write(address("A"), ALICE, put(1), now=NOON, guard=None)


async def write_on(store: Store) -> None:
    await add_message(store, "open")


async def read_on(store: Store) -> None:
    await store.sessions.set_cursor("open", BOB, 3, allow)


async def lease_on(store: Store) -> None:
    await store.leases.acquire(None, "free", BOB, ttl=timedelta(9), now=at(23), guard=None)


@pytest.mark.parametrize("go_on", [add_stranger, add_early_stranger, write_on, read_on, lease_on])
async def test_a_copy_that_went_on_by_itself_is_refused_and_stays_as_it_is(
    source: Settings, destination: Settings, go_on: Callable[[Store], Awaitable[None]]
) -> None:
    async with filled(source):
        await copy(source, destination)
    async with open_storage(destination) as store:
        await go_on(store)
    before = await read_lines(destination)
    with pytest.raises(DestinationDiffers):
        await copy(source, destination)
    assert await read_lines(destination) == before


@pytest.mark.parametrize("session_id", ["open", "another"])
async def test_a_store_with_other_data_is_refused_and_stays_as_it_is(
    source: Settings, destination: Settings, session_id: str
) -> None:
    async with open_storage(destination) as store:
        await add_session(store, session_id, purpose="Something else.")
    before = await read_lines(destination)
    async with filled(source):
        with pytest.raises(DestinationDiffers, match=f"session id='{session_id}'"):
            await copy(source, destination)
    assert await read_lines(destination) == before


async def test_a_record_that_differs_is_named_and_its_content_is_not(
    source: Settings, destination: Settings
) -> None:
    async with filled(source):
        await copy(source, destination)
    with closing(sqlite3.connect(database_path(destination))) as connection, connection:
        connection.execute("UPDATE messages SET content = 'secret' WHERE id = 3")
    with pytest.raises(DestinationDiffers, match="message id=3") as caught:
        await copy(source, destination)
    assert "secret" not in str(caught.value)


async def test_a_destination_that_others_write_to_is_found_out(
    source: Settings, destination: Settings
) -> None:
    class Meddler(RecordedProgress):
        def advance(self, count: int) -> None:
            if self.stages == ["copying"]:
                with closing(sqlite3.connect(database_path(destination))) as connection, connection:
                    connection.execute("UPDATE agents SET last_seen = last_seen + 1")

    async with filled(source):
        moved = await copy(source, destination, Meddler())
    assert not moved.is_equal
    assert [c.kind.name for c in moved.comparisons if not c.is_equal] == ["agent"]


async def test_a_source_that_is_written_to_meanwhile_is_found_out(
    source: Settings, destination: Settings
) -> None:
    class Meddler(RecordedProgress):
        def advance(self, count: int) -> None:
            if self.stages == ["copying"]:
                with closing(sqlite3.connect(database_path(source))) as connection, connection:
                    connection.execute("UPDATE cursors SET seq = seq + 1")

    async with filled(source):
        first = await copy(source, destination, Meddler())
        assert (first.is_equal, first.has_source_gone_on) == (True, True)
        again = await copy(source, destination)
        assert (again.is_equal, again.has_source_gone_on, again.written) == (True, False, 1)


# U+0000


def with_nul(kind: RecordKind, row: Row, column: str) -> Row:
    return tuple((dict(zip(kind.columns, row, strict=True)) | {column: "a\0b\0"}).values())


async def test_nul_in_free_text_becomes_another_character(source: Settings) -> None:
    async with filled(source), open_copier(source, read_only=True) as copier:
        (message, *_) = await copier.read_rows(MESSAGE, limit=1)
        (session, *_) = await copier.read_rows(SESSION, limit=1)
    for kind, row, column in ((MESSAGE, message, "content"), (SESSION, session, "purpose")):
        assert replace_nul(kind, row) == (row, 0)
        replaced, count = replace_nul(kind, with_nul(kind, row, column))
        assert count == 2
        assert replaced[kind.columns.index(column)] == "a\ufffdb\ufffd"


async def test_nul_in_a_name_is_refused_by_name(source: Settings) -> None:
    async with filled(source), open_copier(source, read_only=True) as copier:
        (entry, *_) = await copier.read_rows(MEMORY, limit=1)
        (lease, *_) = await copier.read_rows(LEASE, limit=1)
    for kind, row, column in ((MEMORY, entry, "key"), (LEASE, lease, "name")):
        with pytest.raises(RecordRefused, match=rf"{kind.name} .*a\\x00b.* in {column}"):
            replace_nul(kind, with_nul(kind, row, column))


class WithoutNul:
    """A real copier of a store that could not hold U+0000."""

    can_store_nul = False

    def __init__(self, copier: Copier) -> None:
        self.open_snapshot = copier.open_snapshot
        self.get_position = copier.get_position
        self.read_rows = copier.read_rows
        self.count_rows = copier.count_rows
        self.write_rows = copier.write_rows


async def test_a_store_that_cannot_hold_nul_gets_none_and_counts_it(
    source: Settings, destination: Settings
) -> None:
    async with filled(source) as store:
        await add_message(store, "open", content="a\0b\0")
        async with (
            open_copier(source, read_only=True) as origin,
            open_copier(destination, read_only=False) as copier,
        ):
            rows = await SnapshotSource.of(origin)
            moved = await move(rows, WithoutNul(copier), RecordedProgress())
            assert (moved.is_equal, moved.replaced_nul) == (True, 2)
            again = await move(rows, WithoutNul(copier), RecordedProgress())
            assert (again.is_equal, again.written) == (True, 0)
    lines = await read_lines(destination)
    assert sum(line.count("a\ufffdb\ufffd".encode()) for line in lines) == 1
    assert not any(b"\\u0000" in line for line in lines)
