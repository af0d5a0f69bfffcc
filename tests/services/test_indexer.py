"""The index follows the store, whatever is lost, damaged, deleted or written by others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tantivy

from shared_context_server.models import MemoryAddress
from shared_context_server.search_index import folder
from shared_context_server.search_index.documents import CONTENT
from shared_context_server.search_index.errors import IndexUnusable
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.search_index.writer import IndexWriter
from shared_context_server.services import indexer
from shared_context_server.services.search_request import Within
from tests.services.indexed import Indexed, contents_of, join_index, open_indexed
from tests.storage.builders import (
    ALICE,
    NOON,
    add_message,
    add_session,
    allow,
    at,
    make_audit,
    put,
)


@pytest.fixture
async def indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Indexed]:
    monkeypatch.setattr(indexer, "REBUILD_PAUSE_S", 0)
    async with open_indexed(tmp_path / "data") as opened:
        await add_session(opened.services.store)
        yield opened


async def count_read(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]
) -> int:
    """Return how many messages the indexer reads during the work."""
    read = 0
    list_new = indexed.services.store.messages.list_new

    async def count(*arguments: Any, **named: Any) -> Any:
        nonlocal read
        news = await list_new(*arguments, **named)
        read += len(news.messages)
        return news

    with monkeypatch.context() as patched:
        patched.setattr(indexed.services.store.messages, "list_new", count)
        await work()
    return read


async def test_what_was_read_is_not_read_again(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await indexed.fill([f"first {number}" for number in range(20)])
    assert await count_read(indexed, monkeypatch, indexed.catch_up) == 20
    await indexed.fill(["second"])
    assert await count_read(indexed, monkeypatch, indexed.catch_up) == 1
    assert await count_read(indexed, monkeypatch, indexed.catch_up) == 0
    await indexed.indexer.aclose()
    async with join_index(indexed.services, indexed.root) as restarted:
        assert await count_read(restarted, monkeypatch, restarted.catch_up) == 0
        answer = await restarted.find("frist 7")
        assert contents_of(answer)[0] == "first 7"
        assert (answer.scanned, answer.exhaustive) == (21, True)


async def test_one_process_writes_and_another_one_follows_it(indexed: Indexed) -> None:
    await indexed.fill(["found by both"])
    await indexed.catch_up()
    async with join_index(indexed.services, indexed.root) as other:
        await other.catch_up()
        assert not other.indexer.is_writing
        assert contents_of(await other.find("fuond")) == ["found by both"]
        await indexed.fill(["found by the other too"])
        await indexed.catch_up()
        found = contents_of(await other.find("fuond"))
        assert found == ["found by the other too", "found by both"]
        # The one that wrote ends, and the other one goes on.
        await indexed.indexer.aclose()
        await indexed.fill(["written later"])
        await other.catch_up()
        assert other.indexer.is_writing
        assert (await other.find("wirtten")).exhaustive


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_deleted_session_is_gone_from_results_and_files(
    indexed: Indexed, is_away: bool
) -> None:
    store = indexed.services.store
    await add_session(store, "secret")
    await indexed.fill([f"staying {number}" for number in range(30)])
    await indexed.fill([f"unforgettable{number}" for number in range(9)], "secret")
    for session_id in ("secret", "session_1"):
        place = MemoryAddress("kept", session_id, None)
        value = put(f"{session_id}value")
        await store.memory.write(place, ALICE, value, now=NOON, guard=allow)
    await indexed.catch_up()
    assert "unforgettable7" in list_terms(indexed, "unforgettable")
    assert list_terms(indexed, "secretvalue")
    if is_away:
        await indexed.indexer.aclose()
    await store.sessions.delete("secret", allow, make_audit())
    found = await indexed.find("unforgettable7", session_id=None, within=Within.ALL)
    assert (found.hits, found.memory) == ([], [])
    if is_away:
        async with join_index(indexed.services, indexed.root) as returned:
            await returned.catch_up()
    else:
        await indexed.catch_up()
    assert list_terms(indexed, "unforgettable") == []
    assert list_terms(indexed, "secretvalue") == []
    answer = await indexed.find("staying", session_id=None)
    assert (answer.scanned, answer.exhaustive, len(answer.hits)) == (30, True, 10)
    memory = await indexed.find("session_1value", within=Within.MEMORY)
    assert [hit.address.key for hit in memory.memory] == ["kept"]


@pytest.mark.parametrize("is_away", [False, True])
async def test_expired_messages_are_gone_from_results_and_files(
    indexed: Indexed, is_away: bool
) -> None:
    store = indexed.services.store
    await add_session(store, "other")
    await indexed.fill([f"unforgettable{number}" for number in range(9)], created_at=at(1))
    await indexed.fill([f"staying {number}" for number in range(30)], created_at=at(9))
    await indexed.fill(["unforgettable elsewhere"], "other", created_at=at(1))
    place = MemoryAddress("kept", "session_1", None)
    await store.memory.write(place, ALICE, put("unforgotten"), now=NOON, guard=allow)
    await indexed.catch_up()
    assert "unforgettable7" in list_terms(indexed, "unforgettable")
    if is_away:
        await indexed.indexer.aclose()
    await store.expiry.remove_some("session_1", at(5), lambda *_: make_audit())
    assert (await indexed.find("unforgettable7")).hits == []
    if is_away:
        async with join_index(indexed.services, indexed.root) as returned:
            await returned.catch_up()
    else:
        await indexed.catch_up()
    assert list_terms(indexed, "unforgettable") == ["unforgettable"]
    answer = await indexed.find("staying")
    assert (answer.scanned, answer.exhaustive, len(answer.hits)) == (30, True, 10)
    assert len((await indexed.find("unforgettable", session_id=None)).hits) == 1
    memory = await indexed.find("unforgotten", within=Within.MEMORY)
    assert [hit.address.key for hit in memory.memory] == ["kept"]


async def test_each_replica_has_an_index_of_its_own(indexed: Indexed, tmp_path: Path) -> None:
    async with join_index(indexed.services, tmp_path / "other host") as other:
        await add_session(indexed.services.store, "secret")
        await indexed.fill(["unforgettable"], "secret")
        await indexed.fill(["found on both"])
        for replica in (indexed, other):
            await replica.catch_up()
            assert replica.indexer.is_writing
            answer = await replica.find("fuond", session_id=None)
            assert (contents_of(answer), answer.scanned) == (["found on both"], 2)
        await indexed.services.store.sessions.delete("secret", allow, make_audit())
        for replica in (indexed, other):
            await replica.catch_up()
            assert list_terms(replica, "unforgettable") == []
            assert (await replica.find("found")).exhaustive


class LaterProcess:
    """A helper that does nothing but note that it was asked, and what was unlocked by then."""

    much = 3
    much_to_erase = 5

    def __init__(self) -> None:
        self.is_ready = True
        self.locked: list[bool] = []
        self.folder: IndexFolder | None = None

    def run(self, release: Callable[[], None]) -> None:
        assert self.folder is not None
        self.locked.append(self.folder.is_locked)
        release()
        self.locked.append(self.folder.is_locked)

    def stop(self) -> None:
        self.is_ready = False


async def test_much_is_left_to_the_helper_and_little_is_not(indexed: Indexed) -> None:
    helper = LaterProcess()
    helper.folder = indexed.folder
    indexed.indexer._helper = helper
    await indexed.fill(["little"] * (helper.much - 1))
    await indexed.catch_up()
    assert (await indexed.find("needle")).exhaustive
    assert helper.locked == []
    await indexed.fill(["much"] * helper.much)
    await indexed.catch_up()
    assert helper.locked == [True, False]
    helper.is_ready = False  # it has failed
    await indexed.catch_up()
    assert indexed.indexer.message_id == 2 * helper.much - 1
    # Erasing texts from a large index is much, too.
    helper.is_ready = True
    await add_session(indexed.services.store, "secret")
    await indexed.fill(["unforgettable"], "secret")
    await indexed.catch_up()
    await indexed.services.store.sessions.delete("secret", allow, make_audit())
    await indexed.catch_up()
    assert len(helper.locked) == 2
    await indexed.catch_up()
    assert len(helper.locked) == 4


async def test_a_folder_that_cannot_be_used_breaks_neither_writes_nor_searches(
    indexed: Indexed, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    async with join_index(indexed.services, tmp_path / "file" / "index") as broken:
        await broken.fill(["found all the same"])
        with pytest.raises(IndexUnusable, match="cannot be written"):
            await broken.catch_up()
        assert contents_of(await broken.find("fuond")) == ["found all the same"]


def list_terms(indexed: Indexed, prefix: str) -> list[str]:
    """Return the terms in the files of the index, also those of documents marked as deleted."""
    generation = indexed.folder.find_current()
    searcher = tantivy.Index.open(str(generation)).searcher()
    return [term for field in CONTENT for term, _ in searcher.terms_with_prefix(field, prefix)]


def damage_a_file(root: Path) -> None:
    (path,) = sorted(root.rglob("*.term"))[:1]
    path.unlink()
    path.write_bytes(b"no terms")


def lose_everything(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_file() and path.name != "writer.lock":
            path.unlink()


def lose_the_meta_file(root: Path) -> None:
    next(root.rglob("meta.json")).unlink()


def spoil_the_progress(root: Path) -> None:
    next(root.rglob("progress.json")).write_text("{")


def make_it_old(root: Path) -> None:
    current = next(root.rglob("current"))
    generation = current.parent / current.read_text()
    generation.rename(generation.with_name("v0-old"))
    current.write_text("v0-old")


@pytest.mark.parametrize(
    "damage",
    [damage_a_file, lose_everything, lose_the_meta_file, spoil_the_progress, make_it_old],
)
async def test_a_damaged_index_is_made_anew_and_search_answers_meanwhile(
    indexed: Indexed, damage: Callable[[Path], None]
) -> None:
    await indexed.fill([f"needle {number}" for number in range(20)])
    await indexed.catch_up()
    await indexed.indexer.aclose()
    damage(indexed.root)
    async with join_index(indexed.services, indexed.root) as restarted:
        answer = await restarted.find("needel 3")
        assert contents_of(answer)[0] == "needle 3"  # compared whole
        for _ in range(indexer.MAX_FAILURES):
            try:
                await restarted.catch_up()
            except IndexUnusable:
                continue
        answer = await restarted.find("needel 3")
        assert contents_of(answer)[0] == "needle 3"
        assert (answer.scanned, answer.exhaustive) == (20, True)
        assert (
            await restarted.find("x", within=Within.MEMORY)
        ).exhaustive  # which only an index is
        assert len([path for path in restarted.folder.path.iterdir() if path.is_dir()]) == 1


async def test_an_index_is_not_made_anew_for_want_of_space(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await indexed.fill(["needle"])
    await indexed.catch_up()
    await indexed.indexer.aclose()
    await indexed.fill(["another needle"])
    generation = indexed.folder.find_current()
    other = tantivy.Index.open(str(generation)).writer(15_000_000, 1)  # so none can be opened
    async with join_index(indexed.services, indexed.root) as restarted:
        with monkeypatch.context() as patched:
            patched.setattr(folder, "MIN_FREE_BYTES", 2**60)
            for _ in range(indexer.MAX_FAILURES + 1):
                with pytest.raises(IndexUnusable, match="is full"):
                    await restarted.catch_up()
        del other
        assert contents_of(await restarted.find("needel")) == ["another needle", "needle"]
        await restarted.catch_up()
        assert restarted.indexer.message_id == 2
        assert indexed.folder.find_current() == generation


async def test_a_search_during_a_rebuild_says_that_it_does_not_cover_all(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "COMMIT_AFTER", 10)
    monkeypatch.setattr(indexer, "READ_LIMIT", 10)
    monkeypatch.setattr("shared_context_server.services.search.MAX_UNCOVERED", 0)
    await indexed.fill([f"needle {number}" for number in range(100)])
    commit = IndexWriter.commit
    scanned: list[int] = []

    async def search() -> None:
        answer = await indexed.find("needle")
        assert answer.exhaustive == (answer.scanned == 100)
        scanned.append(answer.scanned)

    loop = asyncio.get_running_loop()

    def commit_and_search(self: IndexWriter, *arguments: Any) -> None:
        commit(self, *arguments)
        if self.generation == indexed.folder.find_current():
            asyncio.run_coroutine_threadsafe(search(), loop).result(30)

    monkeypatch.setattr(IndexWriter, "commit", commit_and_search)
    await indexed.catch_up()
    assert scanned == sorted(scanned)
    assert len(set(scanned)) > 5
    assert scanned[-1] == 100


async def test_an_index_of_another_store_is_made_anew(indexed: Indexed, tmp_path: Path) -> None:
    await indexed.fill(["of the one store"] * 3)
    await indexed.catch_up()
    await indexed.indexer.aclose()
    async with open_indexed(tmp_path / "other") as other:
        await add_session(other.services.store)
        await add_message(other.services.store, content="of the other store")
        async with join_index(other.services, indexed.root) as moved:
            await moved.catch_up()
            await moved.catch_up()
            answer = await moved.find("store")
            assert contents_of(answer) == ["of the other store"]
            assert (answer.scanned, answer.exhaustive) == (1, True)


async def test_a_commit_that_did_not_happen_does_not_count(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await indexed.fill(["before"])
    await indexed.catch_up()
    await indexed.fill(["lost with the process"])

    class Killed(Exception):
        pass

    def die(writer: object) -> None:
        raise Killed

    writer = indexed.indexer._writer
    assert writer is not None
    with monkeypatch.context() as patched:
        # What the process has announced, it does not come to commit.
        patched.setattr(IndexWriter, "_open", property(die))
        with pytest.raises(IndexUnusable):
            writer.commit(indexed.indexer._progress)
    await indexed.indexer.aclose()
    async with join_index(indexed.services, indexed.root) as restarted:
        await restarted.catch_up()
        answer = await restarted.find("lsot")
        assert contents_of(answer) == ["lost with the process"]
        looked = await restarted.find("before lost", session_id=None)
        assert (looked.scanned, looked.exhaustive) == (2, True)


async def test_a_search_knows_a_store_that_was_set_back(indexed: Indexed, tmp_path: Path) -> None:
    await indexed.fill(["of the one store"] * 3)
    await indexed.catch_up()
    async with open_indexed(tmp_path / "other") as other:
        await add_session(other.services.store)
        await indexed_as(other, indexed).fill(["of the other store"])
        answer = await indexed_as(other, indexed).find("other")
        assert contents_of(answer) == ["of the other store"]
        assert (answer.scanned, answer.exhaustive) == (1, True)


def indexed_as(store: Indexed, index: Indexed) -> Indexed:
    """The one's store with the other one's index."""
    services = replace(store.services, candidates=index.services.candidates)
    return replace(index, services=services)
