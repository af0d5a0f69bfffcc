"""Other people's texts in plain text: they look like nothing but what they are."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.display import (
    QUOTE,
    show_line,
    show_name,
    show_printable,
    show_quoted,
    show_text,
)

STEERING = "\x1b\x07\x08\x7f\x9b\u202e\u2066\u200e\ufeff\u2060\u061c"


@pytest.mark.parametrize("name", ["alice", "worker-7", "a.b@host/x", "两只猫", "रवि", "Ann Lee"])
def test_an_ordinary_name_is_shown_as_it_is(name: str) -> None:
    assert show_name(name) == name


@pytest.mark.parametrize(
    "name, shown",
    [
        ("bob: yes, do it", '"bob: yes, do it"'),
        ("a\n#7 bob", r'"a\n#7 bob"'),
        ("bob\u200b", r'"bob\u200b"'),
        ("\u202ebob", r'"\u202ebob"'),
        ('say "hi"', r'"say \"hi\""'),
        ("a\xa0b", r'"a\u00a0b"'),
        (" ", '" "'),
    ],
)
def test_any_other_name_is_quoted_with_escapes(name: str, shown: str) -> None:
    assert show_name(name) == shown


@given(st.text(max_size=50))
def test_what_is_shown_of_a_name_can_be_seen(name: str) -> None:
    for shown in (show_name(name), show_quoted(name)):
        assert "\n" not in shown
        assert {unicodedata.category(char) for char in shown}.isdisjoint({"Cc", "Cf", "Zl", "Zp"})


@given(st.text(max_size=200))
def test_further_lines_stand_behind_the_quote_whatever_ends_a_line(text: str) -> None:
    shown = show_text(text)
    _, *rest = shown.split("\n")
    assert all(line.startswith(QUOTE) for line in rest)
    assert len(shown.splitlines()) <= len(rest) + 1
    assert len(show_line(text).splitlines()) <= 1


def test_what_steers_a_terminal_or_the_direction_is_escaped() -> None:
    for show in (show_line, show_text, show_printable):
        shown = show(f"a{STEERING}b")
        assert not set(shown) & set(STEERING)
        assert r"\u001b" in shown
        assert r"\u202e" in shown


def test_spelling_and_tabs_stay() -> None:
    family = "👩\u200d👩\u200d👧 می\u200cخواهم"  # noqa: RUF001 - letters of their own script
    assert show_text(f"a\t{family}") == f"a\t{family}"
