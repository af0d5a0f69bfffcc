"""Counts of frequent terms are kept as long as they are about right, each for its scope."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared_context_server.search_index.audience import caller_keys
from shared_context_server.search_index.documents import Kind
from shared_context_server.search_index.queries import Scope
from shared_context_server.search_index.reader import TermCounts
from tests.services.indexed import open_indexed
from tests.storage.builders import ALICE, BOB, add_session

SCOPE = Scope(caller_keys(BOB), (Kind.MESSAGE,), "session_1")
OTHER = Scope(caller_keys(ALICE), (Kind.MESSAGE,), "session_1")


@pytest.mark.parametrize(
    "documents, expected",
    [(1_000, 600), (1_020, 600), (980, 600), (1_021, None), (979, None), (0, None)],
)
def test_a_count_holds_until_the_scope_has_changed(documents: int, expected: int | None) -> None:
    counts = TermCounts()
    counts.keep("common", SCOPE, 1_000, 600)
    assert counts.find("common", SCOPE, documents) == expected
    assert counts.find("common", OTHER, documents) is None
    assert counts.find("other", SCOPE, documents) is None


def test_a_count_is_at_most_the_number_of_documents() -> None:
    counts = TermCounts()
    counts.keep("common", SCOPE, 1_000, 1_000)
    assert counts.find("common", SCOPE, 990) == 990


def test_rare_terms_and_too_many_counts_are_not_kept() -> None:
    counts = TermCounts()
    counts.keep("rare", SCOPE, 1_000, TermCounts.LEAST - 1)
    assert counts.find("rare", SCOPE, 1_000) is None
    for number in range(TermCounts.MOST + 1):
        counts.keep(f"common{number}", SCOPE, 1_000, 600)
    assert counts.find("common0", SCOPE, 1_000) is None
    assert counts.find(f"common{TermCounts.MOST}", SCOPE, 1_000) == 600


async def test_later_states_of_an_index_begin_with_the_counts_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TermCounts, "LEAST", 10)
    monkeypatch.setattr(TermCounts, "MOST_CHANGE", 0.5)
    async with open_indexed(tmp_path) as indexed:
        await add_session(indexed.services.store)

        async def count() -> int | None:
            await indexed.catch_up()
            return await indexed.services.candidates.look_up(
                lambda snapshot: snapshot.count_with("common", SCOPE)
            )

        await indexed.fill([f"common {number}" for number in range(20)])
        assert await count() == 20
        await indexed.fill([f"common {number}" for number in range(5)])
        assert await count() == 20  # about right
        await indexed.fill([f"common {number}" for number in range(10)])
        assert await count() == 35
