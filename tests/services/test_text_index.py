"""Ranking: what people look for comes first, whatever they mistype."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.services.text_index import TextIndex


def index_of(*texts: str) -> TextIndex:
    index = TextIndex()
    for text in texts:
        index.add(text)
    return index


def ranked(index: TextIndex, query: str, threshold: float = 60) -> list[int]:
    return [match.index for match in index.match(query, threshold)]


def test_the_message_that_says_it_comes_before_those_that_nearly_do() -> None:
    texts = [f"TASK ASSIGNMENT: worker-{n} takes part {n}" for n in range(30)]
    index = index_of(*texts, "worker-7: task done, next assignment please")
    found = index.match("TASK ASSIGNMENT: worker-7", 60)
    assert found[0].index == 7
    assert found[0].score == 100
    assert found[1].score < 100


def test_a_typo_in_any_word_still_finds_the_text() -> None:
    index = index_of("the deployment pipeline failed on staging", "lunch is at noon today")
    for query in ("deploymnt pipeline", "deployment pipline", "stagign failed"):
        assert ranked(index, query)[0] == 0


def test_words_far_apart_in_a_long_text_are_found() -> None:
    filler = "lorem ipsum dolor sit amet " * 200
    index = index_of(f"database {filler} migration", filler)
    assert ranked(index, "database migration") == [0]


def test_a_part_of_a_word_is_found() -> None:
    assert ranked(index_of("authentication is broken"), "auth") == [0]


def test_numbers_match_only_themselves() -> None:
    assert ranked(index_of("ticket 2024", "ticket 2025"), "2024") == [0]


def test_punctuation_is_found_as_written() -> None:
    assert ranked(index_of("we use C++ here", "we use C here"), "c++")[0] == 0
    assert ranked(index_of("really?!", "really"), "?!") == [0]


def test_among_equals_the_last_added_comes_first() -> None:
    assert ranked(index_of("ping", "book", "ping"), "ping") == [2, 0]


def test_accents_and_case_in_any_composition_are_equal() -> None:
    assert ranked(index_of("Übergröße ZÜRICH"), "übergrösse zu\u0308rich") == [0]


def test_text_without_spaces_is_found_by_a_part() -> None:
    assert ranked(index_of("請把伺服器部署到測試環境"), "部署到測試") == [0]


@pytest.mark.parametrize("query", [" ", "\t\n", ""])
def test_an_empty_query_finds_nothing(query: str) -> None:
    assert ranked(index_of("something"), query, 0) == []


def test_the_threshold_is_inclusive_and_respected() -> None:
    index = index_of("alpha beta", "alpha gamma")
    scores = {match.index: match.score for match in index.match("alpha beta", 0)}
    assert ranked(index, "alpha beta", scores[1]) == [0, 1]
    assert ranked(index, "alpha beta", scores[1] + 0.01) == [0]


words = st.text(alphabet="abcdefgh", min_size=2, max_size=6)
texts = st.lists(st.lists(words, min_size=1, max_size=8).map(" ".join), min_size=1, max_size=20)


@given(texts=texts, data=st.data())
def test_a_text_always_finds_itself_first_with_full_score(
    texts: list[str], data: st.DataObject
) -> None:
    index = index_of(*texts)
    query = data.draw(st.sampled_from(texts))
    best = index.match(query, 60)[0]
    assert best.score == 100
    assert f" {query} " in f" {texts[best.index]} "


@given(texts=texts, query=st.text(max_size=40), threshold=st.floats(0, 100))
def test_scores_are_in_range_sorted_and_each_text_stands_once(
    texts: list[str], query: str, threshold: float
) -> None:
    found = index_of(*texts).match(query, threshold)
    scores = [match.score for match in found]
    assert all(threshold <= score <= 100 for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert len({match.index for match in found}) == len(found)


def test_words_of_scripts_without_spaces_are_found_within_a_run_of_letters() -> None:
    index = index_of("今天天气很好", "昨天下雨了")
    assert [(m.index, m.score) for m in index.match("今天 天气", 60)] == [(0, 99)]
    assert ranked(index_of("ภาษาไทยง่ายมาก"), "ไทย ง่าย") == [0]


def test_words_that_differ_in_their_marks_are_not_the_same() -> None:
    index = index_of("किताब मेज", "कोई और")
    assert all(match.score < 97 for match in index.match("कतब मज", 0))
    assert index.match("किताब मेज", 0)[0].score == 100
