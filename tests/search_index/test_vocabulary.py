"""The words of the index in memory: which longer words contain one, and when they are read anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import tantivy

from shared_context_server.search_index.documents import CONTENT, is_word, make_schema
from shared_context_server.search_index.vocabulary import Vocabulary


@pytest.fixture
def searcher(tmp_path: Path) -> tantivy.Searcher:
    index = tantivy.Index(make_schema(), path=str(tmp_path))
    writer = index.writer(15_000_000, 1)
    for text in ["ringing string bring", "spring string", "stringring ring", "кольцо околица"]:
        document = tantivy.Document()
        document.add_text(CONTENT.words, text)
        writer.add_document(document)
    writer.commit()
    index.reload()
    return index.searcher()


def test_words_that_contain_another_are_listed_the_frequent_ones_first(
    searcher: tantivy.Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = Vocabulary(searcher)
    # Not what only begins with it: the index finds that itself.
    found = vocabulary.list_containing("ring")
    assert found[0] == "string"
    assert set(found) == {"string", "bring", "spring", "stringring"}
    assert vocabulary.list_containing("коли") == ["околица"]
    monkeypatch.setattr("shared_context_server.search_index.vocabulary.MIN_CONTAINING", 1)
    assert vocabulary.list_containing("ring") == ["string"]


def test_a_large_index_is_read_in_parts_with_the_same_result(
    searcher: tantivy.Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Vocabulary(searcher)
    monkeypatch.setattr("shared_context_server.search_index.vocabulary.SMALL_DOCUMENTS", 1)
    in_parts = Vocabulary(searcher)
    for text in ("ring", "rin", "коли", "оль"):
        assert set(in_parts.list_containing(text)) == set(whole.list_containing(text)) != set()


def test_a_vocabulary_is_stale_once_a_part_of_the_documents_is_new_or_gone(
    searcher: tantivy.Searcher,
) -> None:
    vocabulary = Vocabulary(searcher)
    assert [vocabulary.is_stale(documents) for documents in (4, 5, 6, 3, 2)] == [
        False,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "term, expected",
    [
        ("user", True),
        ("c++", True),
        ("привет", True),
        ("नमस्ते", True),
        ("user1", False),
        ("१२", False),
        ("天气", False),
        ("สวัสดี", False),
        ("한글", False),
    ],
)
def test_terms_with_digits_and_of_large_scripts_have_a_field_of_their_own(
    term: str, expected: bool
) -> None:
    assert is_word(term) is expected
