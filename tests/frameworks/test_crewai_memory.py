"""CrewAI's memory over the server's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from crewai.memory.storage.backend import EmbeddingDimensionMismatchError, StorageBackend
from crewai.memory.types import MemoryRecord
from crewai.memory.unified_memory import Memory

from shared_context_client import SyncSharedContextClient, Unauthenticated
from shared_context_client.integrations.crewai_memory import SharedContextStorage

WORDS = ("deploy", "friday", "milk", "database")


def embed(texts: list[str]) -> list[list[float]]:
    """A vector that counts a few words: enough to tell texts apart."""
    return [[float(text.lower().count(word)) for word in WORDS] for text in texts]


def record(content: str, scope: str = "/", **fields: Any) -> MemoryRecord:
    return MemoryRecord(content=content, scope=scope, embedding=embed([content])[0], **fields)


@pytest.fixture
def store(client: SyncSharedContextClient, session_id: str) -> SharedContextStorage:
    return SharedContextStorage(client, session_id=session_id)


def test_it_is_what_crewai_takes_for_a_storage(store: SharedContextStorage) -> None:
    assert isinstance(store, StorageBackend)


def test_what_one_crew_remembers_another_recalls(
    server: Any, store: SharedContextStorage, session_id: str
) -> None:
    known = {"scope": "/", "categories": [], "importance": 0.5}
    ours = Memory(store=store, embedder=embed, llm="never-asked")
    ours.remember("Deploy on Friday.", metadata={}, **known)
    ours.remember("Buy milk.", metadata={}, **known)
    ours.close()
    with SyncSharedContextClient(server.url, api_key=server.key, agent_id="other") as other:
        storage_of_other = SharedContextStorage(other, session_id=session_id)
        theirs = Memory(store=storage_of_other, embedder=embed, llm="never-asked")
        found = theirs.recall("When is the deploy?", depth="shallow", limit=1)
        theirs.close()
    assert [match.record.content for match in found] == ["Deploy on Friday."]


def test_searching_ranks_and_filters(store: SharedContextStorage) -> None:
    best = record("deploy friday", "/team/a", categories=["plan"], metadata={"n": 1})
    other = record("deploy", "/team", categories=["plan"])
    store.save([record("milk"), other, best, record("deploy friday", "/teams")])
    (query,) = embed(["deploy friday"])
    found = store.search(query, scope_prefix="/team")
    assert [one.id for one, _ in found] == [best.id, other.id]
    assert found[0][1] == pytest.approx(1.0)
    assert store.search(query, metadata_filter={"n": 1}, categories=["plan"]) == found[:1]
    assert len(store.search(query, min_score=0.9)) == 2
    assert len(store.search(query, limit=1)) == 1
    with pytest.raises(EmbeddingDimensionMismatchError):
        store.search([1.0])


def test_changes_of_others_are_seen(
    client: SyncSharedContextClient, store: SharedContextStorage, session_id: str
) -> None:
    one = record("deploy")
    store.save([one])
    assert store.count() == 1
    others = SharedContextStorage(client, session_id=session_id)
    others.update(one.model_copy(update={"content": "milk"}))
    others.save([record("database")])
    assert {one.content for one in store.list_records()} == {"milk", "database"}
    others.delete(record_ids=[one.id])
    assert store.get_record(one.id) is None


def test_deleting_takes_all_conditions_together(store: SharedContextStorage) -> None:
    old = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=9)
    store.save([record("a", "/x", created_at=old), record("b", "/x"), record("c", "/y")])
    assert store.delete("/x", older_than=old + timedelta(days=1)) == 1
    assert {one.content for one in store.list_records()} == {"b", "c"}
    store.reset("/x")
    assert store.count() == 1
    store.reset()
    assert store.count() == 0


def test_scopes_and_categories_are_told(store: SharedContextStorage) -> None:
    store.save([record("a", "/x/y/z", categories=["p"]), record("b", "/x", categories=["p", "q"])])
    assert store.list_scopes() == ["/x"]
    assert store.list_scopes("/x") == ["/x/y"]
    assert store.list_categories() == {"p": 2, "q": 1}
    info = store.get_scope_info("/x")
    assert (info.path, info.record_count, info.child_scopes) == ("/x", 2, ["/x/y"])
    assert store.get_scope_info("/none").record_count == 0


def test_touching_does_not_bring_back_what_is_deleted(
    client: SyncSharedContextClient, store: SharedContextStorage, session_id: str
) -> None:
    one = record("a")
    store.save([one])
    before = store.get_record(one.id)
    store.touch_records([one.id, "no-such-record"])
    client.session(session_id).memory.set("crewai/no-record", [1], scope="shared")
    after = store.get_record(one.id)
    assert before is not None
    assert after is not None
    assert after.last_accessed > before.last_accessed
    assert after.embedding == one.embedding
    assert store.count() == 1
    SharedContextStorage(client, session_id=session_id).delete()
    store.touch_records([one.id])
    left = client.session(session_id).memory.list(scope="shared").entries
    assert [entry.key for entry in left] == ["crewai/no-record"]


async def test_it_is_awaited_too(store: SharedContextStorage) -> None:
    await store.asave([record("deploy")])
    assert len(await store.asearch(embed(["deploy"])[0])) == 1
    assert await store.adelete() == 1


def test_a_wrong_key_is_refused(server: Any) -> None:
    with SyncSharedContextClient(server.url, api_key="not-the-key", agent_id="eve") as eve:
        with pytest.raises(Unauthenticated):
            SharedContextStorage(eve).count()
        with pytest.raises(Unauthenticated):
            SharedContextStorage(eve).save([record("a")])


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("crewai-memory", embedder=embed, model="never-asked")
    assert capsys.readouterr().out == "Deploy on Friday.\n"
