"""Search by meaning: what is near is found by whom it may be, and the vectors follow the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.errors import ConfigurationError, InvalidArgument, Unavailable
from shared_context_server.models import Access, Caller, MemoryAddress, Visibility
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.server import open_server
from shared_context_server.services import indexer
from shared_context_server.services.context import Services
from shared_context_server.services.indexer import open_indexer
from shared_context_server.services.search import SearchAnswer, search_context
from shared_context_server.services.search_request import (
    SearchMode,
    SearchRequest,
    SortOrder,
    Within,
)
from shared_context_server.services.vector_indexer import VectorIndexer
from shared_context_server.services.vectors import Vectors
from shared_context_server.vector_index.layout import ROW
from shared_context_server.vector_index.windows import MAX_WINDOWS, WINDOW_CHARS
from tests.services.indexed import contents_of
from tests.services.small_embedder import SmallEmbedder
from tests.settings import make_settings
from tests.storage.builders import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    NOON,
    add_message,
    add_session,
    allow,
    at,
    make_audit,
    put,
)
from tests.until import until

MODEL = "python:tests.services.small_embedder:make_embedder"
MODES = (SearchMode.SEMANTIC, SearchMode.HYBRID)


@dataclass
class Meaning:
    """A server with vectors that follow the store when the test says so."""

    services: Services
    indexer: VectorIndexer
    vectors: Vectors
    folder: IndexFolder

    @property
    def embedder(self) -> SmallEmbedder:
        embedder = self.vectors.load_embedder()
        assert isinstance(embedder, SmallEmbedder)
        return embedder

    async def add(self, *contents: str, **fields: Any) -> None:
        for content in contents:
            await add_message(
                self.services.store, fields.pop("session", "session_1"), content=content, **fields
            )

    async def find(
        self,
        query: str,
        *,
        caller: Caller = BOB,
        session_id: str | None = "session_1",
        **fields: Any,
    ) -> SearchAnswer:
        asked = SearchRequest(
            session_id, query, fuzzy_threshold=60, limit=10, mode=SearchMode.SEMANTIC
        )
        return await search_context(self.services, caller, replace(asked, **fields))


@asynccontextmanager
async def join(services: Services, root: Path, model: str = MODEL) -> AsyncIterator[Meaning]:
    """Use the vectors in this directory, as one more process would."""
    folder = IndexFolder(root, "store")
    vectors = Vectors(folder, model)
    writer = VectorIndexer(services.store, vectors)
    try:
        yield Meaning(replace(services, vectors=vectors), writer, vectors, folder)
    finally:
        writer.begin_closing()
        await writer.aclose()
        vectors.close()


@pytest.fixture
async def meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Meaning]:
    monkeypatch.setattr(indexer, "REBUILD_PAUSE_S", 0)
    settings = make_settings(tmp_path / "data", search_index=False)
    async with open_server(settings) as server, join(server.services, tmp_path / "vectors") as made:
        await add_session(made.services.store)
        yield made


async def remember(meaning: Meaning, place: MemoryAddress, value: str) -> None:
    await meaning.services.store.memory.write(place, ALICE, put(value), now=NOON, guard=allow)


async def test_what_means_the_same_is_found(meaning: Meaning) -> None:
    same, half = "please repair the automobile", "the truck arrived yesterday evening"
    await meaning.add("nothing to see here", half, same, "bananas are yellow")
    await meaning.indexer.catch_up()
    found = await meaning.find("fix the car please")
    assert contents_of(found)[:2] == [same, half]
    assert (found.exhaustive, found.scanned) == (True, 4)
    best = found.hits[0]
    assert 99 < best.score <= 100
    assert best.match_preview == same
    assert [same[start:end] for start, end in best.highlights] == ["please", "the"]
    assert all(60 <= hit.score <= best.score for hit in found.hits)
    assert contents_of(await meaning.find("fix car", mode=SearchMode.FUZZY)) == []
    # By words another one is first; the one that both lists have comes before it.
    await meaning.add("fix the cart, not the carrot", "fix the car")
    await meaning.indexer.catch_up()
    both = await meaning.find("fix the car", mode=SearchMode.HYBRID)
    assert contents_of(both)[0] == "fix the car"
    assert both.hits[0].score == 100
    assert same in contents_of(both)
    assert both.exhaustive


async def test_only_what_the_caller_sees_is_found_and_counted(meaning: Meaning) -> None:
    store = meaning.services.store
    await add_session(store, "closed", access=Access.INVITED, created_by="carol")
    secret = {"visibility": Visibility.PRIVATE, "recipients": ("carol",), "sender": ALICE}
    texts = {
        "public car": {},
        "private car": secret,
        "admins' car": {"visibility": Visibility.ADMIN_ONLY, "sender": ADMIN},
        "type's car": {"visibility": Visibility.AGENT_ONLY, "sender": ALICE},
    }
    for content, fields in texts.items():
        await meaning.add(content, **fields)
    await meaning.add("closed car", session="closed", sender=CAROL)
    for place in (
        MemoryAddress("car", None, "bob"),
        MemoryAddress("car", "session_1", None),
        MemoryAddress("car", "closed", None),
    ):
        await remember(meaning, place, "vehicle")
    await meaning.indexer.catch_up()
    seen = {
        BOB: ({"public car", "type's car"}, 2),
        ALICE: ({"public car", "private car", "type's car"}, 1),
        CAROL: ({"public car", "private car", "closed car"}, 2),
        ADMIN: ({*texts, "closed car"}, 2),
    }
    for caller, (contents, entries) in seen.items():
        for mode in MODES:
            found = await meaning.find(
                "automobile car", caller=caller, session_id=None, within=Within.ALL, mode=mode
            )
            assert set(contents_of(found)) == contents, (caller, mode)
            assert (len(found.memory), found.scanned) == (entries, len(contents) + entries)
            assert found.exhaustive
    filtered = await meaning.find("car", caller=CAROL, session_id=None, sender="carol")
    assert contents_of(filtered) == ["closed car"]
    filtered = await meaning.find("car", caller=ALICE, visibility=Visibility.PRIVATE)
    assert contents_of(filtered) == ["private car"]


async def test_an_answer_says_what_the_vectors_lack(meaning: Meaning) -> None:
    await meaning.add("an old car")
    assert not (await meaning.find("vehicle")).exhaustive
    await meaning.indexer.catch_up()
    assert (await meaning.find("vehicle")).exhaustive
    await meaning.add(
        "for carol", visibility=Visibility.PRIVATE, recipients=("carol",), sender=ALICE
    )
    assert (await meaning.find("vehicle")).exhaustive
    await meaning.add("a new truck")
    lacking = await meaning.find("vehicle")
    assert (contents_of(lacking), lacking.exhaustive) == (["an old car"], False)
    hybrid = await meaning.find("new truck", mode=SearchMode.HYBRID)
    assert contents_of(hybrid)[0] == "a new truck"
    assert not hybrid.exhaustive


async def test_what_was_embedded_is_not_embedded_again(meaning: Meaning, tmp_path: Path) -> None:
    await meaning.add(*(f"car number {number}" for number in range(30)))
    await meaning.indexer.catch_up()
    assert len(meaning.embedder.embedded) == 30
    async with join(meaning.services, tmp_path / "vectors") as other:
        await other.indexer.catch_up()
        assert (await other.find("vehicle number 7")).scanned == 30
        assert other.embedder.embedded == ["vehicle number 7"]
    await meaning.indexer.aclose()
    async with join(meaning.services, tmp_path / "vectors") as restarted:
        await meaning.add("one more truck")
        await restarted.indexer.catch_up()
        assert restarted.embedder.embedded == ["one more truck"]
        assert (await restarted.find("vehicle")).scanned == 31


async def test_expired_messages_leave_no_vector(meaning: Meaning) -> None:
    store = meaning.services.store
    await meaning.add("a secret vehicle")
    await remember(meaning, MemoryAddress("kept", "session_1", None), "truck")
    await meaning.indexer.catch_up()
    (generation,) = [path for path in meaning.folder.path.iterdir() if path.is_dir()]
    await store.expiry.remove_some("session_1", at(1), lambda *_: make_audit())
    await meaning.add("the car here", created_at=at(1))
    await meaning.indexer.catch_up()
    found = await meaning.find("vehicle", within=Within.ALL)
    assert (contents_of(found), found.scanned) == (["the car here"], 2)
    assert [hit.address.key for hit in found.memory] == ["kept"]
    assert (generation / "rows").stat().st_size == 2 * ROW.itemsize


async def test_a_deleted_session_leaves_no_vector(meaning: Meaning, tmp_path: Path) -> None:
    store = meaning.services.store
    await meaning.add("the car here")
    await meaning.indexer.catch_up()
    (generation,) = [path for path in meaning.folder.path.iterdir() if path.is_dir()]
    kept = (generation / "bytes").read_bytes()
    await add_session(store, "gone")
    await meaning.add("a secret vehicle", session="gone")
    await remember(meaning, MemoryAddress("secret", "gone", None), "truck")
    await meaning.indexer.catch_up()
    assert (await meaning.find("vehicle", session_id=None, within=Within.ALL)).scanned == 3
    await store.sessions.delete("gone", allow, make_audit())
    await meaning.indexer.catch_up()
    found = await meaning.find("vehicle", session_id=None, within=Within.ALL)
    assert (contents_of(found), found.scanned) == (["the car here"], 1)
    assert (generation / "bytes").read_bytes().rstrip(b"\0") == kept.rstrip(b"\0")
    assert all(b"secret" not in path.read_bytes() for path in generation.iterdir())
    # What is changed often takes no more rows.
    for value in ("car", "truck", "vehicle"):
        await remember(meaning, MemoryAddress("note", None, "bob"), value)
        await meaning.indexer.catch_up()
    found = await meaning.find("note: vehicle", session_id=None, within=Within.MEMORY)
    assert [(hit.address.key, hit.version) for hit in found.memory] == [("note", 3)]
    assert "vehicle" in found.memory[0].match_preview
    assert len((generation / "bytes").read_bytes()) == 3 * len(kept)


@pytest.mark.parametrize("fault", ["cut", "overwritten", "lost"])
async def test_damaged_vectors_are_made_anew(meaning: Meaning, tmp_path: Path, fault: str) -> None:
    await meaning.add("an old car")
    await meaning.indexer.catch_up()
    await meaning.indexer.aclose()
    (generation,) = [path for path in meaning.folder.path.iterdir() if path.is_dir()]
    match fault:
        case "cut":
            (generation / "bytes").write_bytes(b"")
        case "overwritten":
            (generation / "names.db").write_bytes(b"nonsense" * 1000)
        case "lost":
            (meaning.folder.path / "current").unlink()
    async with join(meaning.services, tmp_path / "vectors") as restarted:
        assert not (await restarted.find("vehicle")).exhaustive
        await restarted.indexer.catch_up()
        found = await restarted.find("vehicle")
        assert (contents_of(found), found.exhaustive) == (["an old car"], True)


async def test_another_model_gets_vectors_of_its_own(meaning: Meaning, tmp_path: Path) -> None:
    await meaning.add("an old car")
    await meaning.indexer.catch_up()
    await meaning.indexer.aclose()
    async with join(meaning.services, tmp_path / "vectors") as other:
        other.embedder.name = "another"
        assert not (await other.find("vehicle")).exhaustive
        await other.indexer.catch_up()
        assert contents_of(await other.find("vehicle")) == ["an old car"]
        assert "an old car" in other.embedder.embedded


async def test_a_model_that_fails_costs_no_vectors(meaning: Meaning) -> None:
    await meaning.add("an old car")
    await meaning.indexer.catch_up()
    meaning.embedder.fails = True
    with pytest.raises(Unavailable):
        await meaning.find("vehicle")
    await meaning.add("a new car")
    async with asyncio.timeout(30), open_indexer(meaning.indexer):
        await until(lambda: meaning.embedder.failures > 1)
        meaning.embedder.fails = False
        found = await meaning.find("vehicle")
        while not found.exhaustive:
            await asyncio.sleep(0.01)
            found = await meaning.find("vehicle")
    assert set(contents_of(found)) == {"an old car", "a new car"}
    assert meaning.embedder.embedded.count("an old car") == 1


async def test_the_nearest_part_of_a_long_text_is_shown(meaning: Meaning) -> None:
    filler = "some words about nothing in particular. " * (2 * WINDOW_CHARS // 40)
    unread = "x " * (WINDOW_CHARS * MAX_WINDOWS) + "automobile repair"
    await meaning.add(f"{filler}\nThe truck needs repair after the breakdown.", unread)
    await meaning.indexer.catch_up()
    found = await meaning.find("fix vehicle failure", fuzzy_threshold=55)
    assert len(found.hits) == 1
    assert "truck needs repair" in found.hits[0].match_preview
    assert found.scanned == 2


async def test_memory_is_shown_by_its_words_or_its_nearest_part(meaning: Meaning) -> None:
    filler = "some words about nothing in particular. " * (2 * WINDOW_CHARS // 40)
    await remember(meaning, MemoryAddress("far", None, "bob"), f"{filler} truck needs repair")
    await remember(meaning, MemoryAddress("fix", None, "bob"), "the vehicle")
    await meaning.indexer.catch_up()
    for mode in MODES:
        found = await meaning.find(
            "fix vehicle", session_id=None, within=Within.MEMORY, mode=mode, fuzzy_threshold=55
        )
        shown = {hit.address.key: hit for hit in found.memory}
        assert list(shown) == ["fix", "far"]
        assert "truck needs repair" in shown["far"].match_preview
        assert shown["fix"].highlights
        # A hybrid search gives the first of both lists 100, and what one list lacks at most 50.
        assert shown["fix"].score > shown["far"].score
        if mode is SearchMode.HYBRID:
            assert (shown["fix"].score, shown["far"].score < 50) == (100, True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sort", list(SortOrder))
async def test_pages_have_each_match_once(
    meaning: Meaning, mode: SearchMode, sort: SortOrder
) -> None:
    await meaning.add(*(f"car {'repair ' * (number % 3)}{number}" for number in range(25)))
    await meaning.indexer.catch_up()
    asked: dict[str, Any] = {"mode": mode, "sort": sort, "limit": 4, "fuzzy_threshold": 0}
    shown, cursor = [], None
    while True:
        page = await meaning.find("fix car", cursor=cursor, **asked)
        shown += page.hits
        first, cursor = cursor or page.next_cursor, page.next_cursor
        if cursor is None:
            break
    ids = [hit.message.id for hit in shown]
    assert len(set(ids)) == len(ids) == 25
    places = ids if sort is SortOrder.NEWEST else [hit.score for hit in shown]
    assert places == sorted(places, reverse=True)
    with pytest.raises(InvalidArgument, match="mode"):
        await meaning.find("fix car", cursor=first, **{**asked, "mode": SearchMode.FUZZY})


async def test_the_setting_switches_it_on(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "data", semantic_model=MODEL)
    asked = SearchRequest("session_1", "vehicle", 60, 10, mode=SearchMode.SEMANTIC)
    async with open_server(settings) as server:
        await add_session(server.services.store)
        await add_message(server.services.store, "session_1", content="an old car")

        async with asyncio.timeout(30):
            found = await search_context(server.services, BOB, asked)
            while not found.exhaustive:
                await asyncio.sleep(0.01)
                found = await search_context(server.services, BOB, asked)
        assert contents_of(found) == ["an old car"]


def test_an_error_says_whether_the_extra_or_the_setting_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Vectors().require(SearchMode.HYBRID)
    assert refused.value.details["extra"] == "semantic"
    model = tmp_path / "model"
    with pytest.raises(ConfigurationError, match=r"extra semantic: onnxruntime, tokenizers"):
        Vectors(None, str(model))
    for name in ("onnxruntime", "tokenizers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidArgument) as refused:
        Vectors().require(SearchMode.SEMANTIC)
    assert refused.value.details["setting"] == "SEMANTIC_MODEL"
    with pytest.raises(ConfigurationError, match=r"needs tokenizer\.json"):
        Vectors(None, str(model))
    with pytest.raises(ConfigurationError, match="names no function"):
        Vectors(None, "python:tests.services.small_embedder:nothing").load_embedder()
