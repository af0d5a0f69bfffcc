"""Words and mentions in any script."""

from __future__ import annotations

import unicodedata

import pytest

from shared_context_server.services.words import (
    PIECE_CHARS,
    Mention,
    normalize,
    normalize_in_pieces,
    split_into_pieces,
    split_words,
)


@pytest.mark.parametrize(
    "text, words",
    [
        ("हिन्दी में लिखा", ["हिन्दी", "में", "लिखा"]),
        ("ภาษาไทย ดี", ["ภาษาไทย", "ดี"]),
        ("தமிழ் நாடு", ["தமிழ்", "நாடு"]),
        ("cafe\u0301 nai\u0308ve", ["café", "naïve"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # noqa: RUF001 - letters of their own script
        ("worker-7, done_now", ["worker", "7", "done_now"]),
    ],
)
def test_a_word_keeps_its_marks(text: str, words: list[str]) -> None:
    assert split_words(normalize(text)) == words


@pytest.mark.parametrize("text", ["x" * 5000, "ab cd " * 2000, "水。" * 3000, "\ufdfa" * 3000])
def test_pieces_of_a_text_are_short_and_leave_nothing_out(text: str) -> None:
    pieces = list(split_into_pieces(text))
    assert "".join(text[start:end] for start, end in pieces) == text
    assert all(0 < end - start <= PIECE_CHARS for start, end in pieces)
    assert "".join(normalize_in_pieces(text)) == unicodedata.normalize("NFKC", text).casefold()


def test_a_long_text_is_cut_between_words() -> None:
    text = "e\u0301te\u0301 " * 1500
    assert split_words(normalize(text)) == ["été"] * 1500


@pytest.mark.parametrize(
    "name, content, is_mentioned",
    [
        ("alice", "@alice, please", True),
        ("alice", "请@alice看一下", True),
        ("alice", "请\uff20alice看一下", True),
        ("alice", "done.@alice", True),
        ("alice", "write to bob@alice.example.com", False),
        ("alice", "write to x@alice", False),
        ("alice", "почта@alice", False),
        ("alice", "@alice.example.com", False),
        ("alice", "@alice-2 and @alicia", False),
        ("alice", "@alice\u0301", False),
        ("José", "hola @Jose\u0301!", True),
        ("小明", "@小明看一下", True),
        ("a.b[c--d]", "see @a.b[c--d].", True),
        ("a.b[c--d]", "see @axb[c--d].", False),
        ("alice", "nobody", False),
    ],
)
def test_a_mention_is_a_word_of_its_own(name: str, content: str, is_mentioned: bool) -> None:
    assert Mention(name).is_in(content) is is_mentioned
