"""What a search asks the index."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared_context_server.services.lookup import CANDIDATES_OF_LATER_PAGES, _count_candidates
from shared_context_server.services.search_request import SearchRequest


@pytest.mark.parametrize(
    "texts, limit, of_words, of_runs",
    [(0, 10, 100, 100), (500_000, 10, 125, 150), (10**9, 10, 150, 200), (10**9, 100, 400, 400)],
)
def test_more_candidates_are_asked_for_among_more_texts(
    texts: int, limit: int, of_words: int, of_runs: int
) -> None:
    request = SearchRequest(None, "any", 60.0, limit)
    assert _count_candidates(request, texts, has_runs=False) == of_words
    assert _count_candidates(request, texts, has_runs=True) == of_runs
    later = replace(request, cursor="next")
    assert _count_candidates(later, texts, has_runs=True) == CANDIDATES_OF_LATER_PAGES
