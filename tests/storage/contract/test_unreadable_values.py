"""Memory values that earlier versions stored and that no parser reads: integers of any length."""

from __future__ import annotations

import io

import pytest

from shared_context_server.models import MemoryScope
from shared_context_server.services.dumps import DumpSource, write_dump
from shared_context_server.services.moving import move
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_copier
from shared_context_server.storage.transfer.records import MEMORY
from tests.storage.builders import ALICE, NOON, address, make_audit, put
from tests.storage.transfer.test_copying import NOON_US, read

# What increments by 10**4299 came to; json.loads and pydantic stop at 4,300 digits.
DIGITS = "9" * 4301
VALUES = [DIGITS, f"-{DIGITS}", f'{{"deep": [1, {DIGITS}, "{DIGITS}"]}}', f"[{10**30}]"]


class IgnoreProgress:
    def begin(self, stage: str, total: int | None) -> None: ...

    def advance(self, count: int) -> None: ...


def row(value: str) -> tuple[object, ...]:
    return ("", "alice", "old", 7, NOON_US, NOON_US, "alice", None, len(value), '{"kept":1}', value)


@pytest.fixture(params=VALUES, ids=["integer", "negative", "nested", "30 digits"])
async def stored(request: pytest.FixtureRequest, store: Store, any_settings: Settings) -> str:
    """The text of a value that is in the database as an earlier version wrote it."""
    assert MEMORY.columns[-1] == "value"
    async with open_copier(any_settings, read_only=False) as copier:
        await copier.write_rows(MEMORY, [row(request.param)], [])
    text: str = request.param
    return text


OLD = address("old", owner="alice")


async def test_it_is_told_from_a_null(store: Store, stored: str) -> None:
    entry = await store.memory.get(OLD, now=NOON, guard=None)
    assert entry.is_readable == (DIGITS not in stored)
    assert (entry.version, entry.metadata) == (7, {"kept": 1})


async def test_it_can_be_listed_and_deleted(store: Store, stored: str) -> None:
    page = await store.memory.list_entries(
        session_id=None, owner="alice", prefix="", limit=9, after_key=None, now=NOON, guard=None
    )
    listed = page.items
    assert [entry.address.key for entry in listed] == ["old"]
    assert listed[0].address.scope is MemoryScope.PRIVATE
    await store.memory.delete(OLD, lambda _: None, now=NOON, guard=None, audit=make_audit("gone"))


async def test_it_can_be_replaced(store: Store, stored: str) -> None:
    written = await store.memory.write(OLD, ALICE, put(1), now=NOON, guard=None)
    assert (written.entry.version, written.entry.value) == (8, 1)


async def test_a_dump_has_every_digit_and_fills_another_store(
    stored: str, store: Store, any_settings: Settings, settings: Settings
) -> None:
    dump = io.BytesIO()
    other = settings.model_copy(update={"data_dir": settings.data_dir / "other"})
    async with (
        open_copier(any_settings, read_only=True) as copier,
        copier.open_snapshot() as snapshot,
    ):
        await write_dump(snapshot, dump, IgnoreProgress(), is_compressed=False)
    assert stored.replace(" ", "") in dump.getvalue().decode()
    dump.seek(0)
    async with open_copier(other, read_only=False) as copier:
        source = DumpSource(dump)
        source.check(IgnoreProgress())
        assert (await move(source, copier, IgnoreProgress())).is_equal
        assert [found[-1] for found in await read(copier, MEMORY)] == [stored.replace(" ", "")]
