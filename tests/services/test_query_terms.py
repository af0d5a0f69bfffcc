"""The terms of a query: which typos they allow, and how much they weigh."""

from __future__ import annotations

import pytest

from shared_context_server.services.query_terms import query_terms
from shared_context_server.services.terms import Kind


def test_numbers_and_codes_allow_no_typo_and_longer_words_allow_more() -> None:
    edits = {term.text: term.max_edits for term in query_terms("the wrld deployment 20345 7fe2a")}
    assert edits == {"the": 0, "wrld": 1, "deployment": 2, "20345": 0, "7fe2a": 0}


def test_the_weights_of_a_query_add_up_to_one() -> None:
    assert sum(term.weight for term in query_terms("deploy the 今天天气 user_id")) == pytest.approx(
        1
    )


@pytest.mark.parametrize("query", ["", " ", "?!", "->"])
def test_a_query_without_words_has_no_terms(query: str) -> None:
    assert query_terms(query) == []


def test_two_words_also_look_for_the_same_written_as_one() -> None:
    (data, base) = query_terms("data base")
    assert data.alternatives == base.alternatives == ("database",)
    assert data.kind is Kind.WORD
