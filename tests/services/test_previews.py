"""Previews: they show the place that was found."""

from __future__ import annotations

from itertools import pairwise

import pytest

from shared_context_server.services.previews import PREVIEW_CHARS, Preview, preview

FILLER = "lorem ipsum dolor sit amet "


def highlighted(found: Preview) -> list[str]:
    return [found.text[start:end] for start, end in found.highlights]


@pytest.mark.parametrize(
    "query, content, words",
    [
        ("strasse", "die Straße", ["Straße"]),
        ("istanbul", "İİİ İstanbul", ["İstanbul"]),
        ("office", "the o\ufb03ce", ["o\ufb03ce"]),
        ("resume", "my r\u0065\u0301sume\u0301!", ["r\u0065\u0301sume\u0301"]),
        ("データ", "ｶﾞｶﾞﾃﾞｰﾀを", ["ﾃﾞｰﾀ"]),
        ("今天 天气", "说「今天天气很好", ["今天", "天气"]),
        ("ไทย", "ภาษาไทยง่าย", ["ไทย"]),
        ("किताब", "यह किताब है", ["किताब"]),
        ("user_id", "the userId of", ["userId"]),
        ("user id", "a user_id, an id", ["user_id", "id"]),
        ("deploymnt pipeline", "Deployment and pipeline: red", ["Deployment", "pipeline"]),
        ("needle", "(needle), needles", ["needle", "needles"]),
        ("?!", "really?! yes", ["?!"]),
    ],
)
def test_what_matches_is_highlighted_as_it_is_written(
    query: str, content: str, words: list[str]
) -> None:
    assert highlighted(preview(query, content)) == words
    far = preview(query, f"{FILLER * 40}{content} {FILLER * 40}")
    assert highlighted(far) == words
    assert far.text.startswith("…")


def test_the_place_with_most_of_the_query_is_shown() -> None:
    content = f"{FILLER * 20}failed {FILLER * 20}the night build failed {FILLER * 20}build"
    assert highlighted(preview("night build failed", content)) == ["night", "build", "failed"]


def test_highlights_are_in_order_and_do_not_overlap() -> None:
    content = "getUserName user_name userName " * 30
    found = preview("user name get_user_name", content).highlights
    assert len(found) > 5
    assert all(one[1] <= other[0] for one, other in pairwise(found))
    assert all(start < end for start, end in found)


def test_a_short_text_is_its_own_preview() -> None:
    assert preview("x", "short") == Preview("short", [])


@pytest.mark.parametrize("lead", ["ß", "İ", "\ufb03", "ｶﾞ", "\ufdfa", "e\u0301", "word "])
@pytest.mark.parametrize("times", [300, 5000])
def test_the_match_is_shown_behind_letters_that_fold_to_others(lead: str, times: int) -> None:
    content = lead * times + " the needle stands here " + "tail " * 100
    found = preview("needle", content)
    assert "needle" in found.text
    assert len(found.text) <= PREVIEW_CHARS + 2
    assert highlighted(found) == ["needle"]


def test_a_match_that_is_written_otherwise_is_shown_as_it_is_written() -> None:
    assert "STRASSE" in preview("straße", FILLER * 50 + "STRASSE" + FILLER * 50).text
    assert "ﾃﾞｰﾀ" in preview("データ", FILLER * 50 + "ﾃﾞｰﾀ" + FILLER * 50).text


def test_a_typo_far_behind_in_a_long_text_is_shown() -> None:
    content = FILLER * 3000 + "the migration of databases " + FILLER * 300
    assert "migration" in preview("migratoin of databses", content).text


def test_one_of_several_words_is_shown() -> None:
    content = FILLER * 100 + "authentication" + FILLER * 100
    assert "authentication" in preview("nowhere authentication", content).text
