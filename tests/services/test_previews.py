"""Previews: they show the place that was found."""

from __future__ import annotations

import pytest

from shared_context_server.services.previews import PREVIEW_CHARS, preview

FILLER = "lorem ipsum dolor sit amet "


def test_a_short_text_is_its_own_preview() -> None:
    assert preview("x", "short") == "short"


@pytest.mark.parametrize("lead", ["ß", "İ", "\ufb03", "ｶﾞ", "\ufdfa", "e\u0301", "word "])
@pytest.mark.parametrize("times", [300, 5000])
def test_the_match_is_shown_behind_letters_that_fold_to_others(lead: str, times: int) -> None:
    content = lead * times + " the needle stands here " + "tail " * 100
    found = preview("needle", content)
    assert "needle" in found
    assert len(found) <= PREVIEW_CHARS + 2


def test_a_match_that_is_written_otherwise_is_shown_as_it_is_written() -> None:
    assert "STRASSE" in preview("straße", FILLER * 50 + "STRASSE" + FILLER * 50)
    assert "ﾃﾞｰﾀ" in preview("データ", FILLER * 50 + "ﾃﾞｰﾀ" + FILLER * 50)


def test_a_typo_far_behind_in_a_long_text_is_shown() -> None:
    content = FILLER * 3000 + "the migration of databases " + FILLER * 300
    assert "migration" in preview("migratoin of databses", content)


def test_one_of_several_words_is_shown() -> None:
    content = FILLER * 100 + "authentication" + FILLER * 100
    assert "authentication" in preview("nowhere authentication", content)
