"""Patterns of paths, compared with sampled paths and with a slow matcher."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_context_server.path_patterns import (
    MAX_PATTERN_CHARS,
    PatternError,
    find_matching,
    find_overlap,
    normalize_patterns,
)

NAME = st.text("ab*?", min_size=1, max_size=3) | st.sampled_from(
    ["**", "a", "b", "[ab]", "[!a]", "*[b]a", "é", "[!b]*"]
)
PATTERNS = st.lists(NAME, min_size=1, max_size=4).map("/".join)
# All paths of up to three names with up to three characters: enough to tell such patterns apart.
NAMES = ["".join(c) for size in (1, 2, 3) for c in itertools.product("abé", repeat=size)]
SHORT = [name for name in NAMES if len(name) < 3]
PATHS = [*NAMES, *map("/".join, itertools.product(SHORT, repeat=2))]


def to_regex(pattern: str) -> re.Pattern[str]:
    """The same in the words of another engine."""
    (pattern,) = normalize_patterns([pattern])
    *folders, last = pattern.split("/")
    names = ["(?:[^/]+/)*" if name == "**" else f"{translate(name)}/" for name in folders]
    end = ".+" if last == "**" else f"(?=[^/]){translate(last)}"
    return re.compile(
        "".join(f"(?=[^/]){name}" if "**" not in name else name for name in names) + end
    )


def translate(name: str) -> str:
    words = {"*": "[^/]*", "?": "[^/]"}
    classes = re.findall(r"\[!?[^]]*\]|.", name)
    return "".join(
        words.get(c) or (f"(?!/){c.replace('[!', '[^')}" if len(c) > 1 else re.escape(c))
        for c in classes
    )


@settings(max_examples=50)
@given(PATTERNS)
def test_a_path_is_matched_as_by_another_engine(pattern: str) -> None:
    normal, regex = normalize_patterns([pattern]), to_regex(pattern)
    for path in PATHS:
        assert bool(find_matching(path, [normal])) == bool(regex.fullmatch(path)), path


@settings(max_examples=40)
@given(PATTERNS, PATTERNS)
def test_patterns_that_share_a_sampled_path_overlap_both_ways(one: str, other: str) -> None:
    first, second = normalize_patterns([one]), normalize_patterns([other])
    overlaps = find_overlap(first, [second]) is not None
    assert overlaps == (find_overlap(second, [first]) is not None)
    shared = [p for p in PATHS if to_regex(one).fullmatch(p) and to_regex(other).fullmatch(p)]
    if shared:
        assert overlaps
    assert find_overlap(first, [first]) == 0


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "a*"]), min_size=1, max_size=2),
    st.lists(st.sampled_from(["a", "b", "*", "?", "[!a]", "**", "*b"]), min_size=1, max_size=2),
)
def test_short_patterns_overlap_only_if_a_path_shows_it(one: list[str], other: list[str]) -> None:
    # All that patterns of two such names can share has two names of up to two characters.
    first, second = "/".join(one), "/".join(other)
    overlaps = find_overlap(normalize_patterns([first]), [normalize_patterns([second])]) is not None
    shown = any(to_regex(first).fullmatch(p) and to_regex(second).fullmatch(p) for p in PATHS)
    assert overlaps == shown


@pytest.mark.parametrize(
    "one, other, overlaps",
    [
        ("src/**", "src/a/b.py", True),
        ("src/**", "src", False),
        ("src/", "src/a", True),
        ("./src//a", "src/a", True),
        ("**/*.py", "src/*", True),
        ("**/*.py", "src/*.md", False),
        ("**/a/**/b", "a/b", True),
        ("a/*/b", "**/b", True),
        ("a/*/b", "a/b", False),
        ("*", "a/b", False),
        ("[a-m]*", "[n-z]*", False),
        ("[!a]", "é", True),
        ("x[[]y", "x?y", True),
        ("[]a]", "a", True),
        ("a**b", "a/b", False),
        ("*a*a*b", "*b*c", False),
        ("*a*b", "b*ab", True),
    ],
)
def test_examples_of_overlaps(one: str, other: str, overlaps: bool) -> None:
    found = find_overlap(normalize_patterns([one]), [("zzz/zzz",), normalize_patterns([other])])
    assert found == (1 if overlaps else None)


@pytest.mark.parametrize(
    "patterns",
    [
        ["/etc"], ["C:/x"], ["a/../b"], ["a\\b"], ["."], [""], ["[a"], ["[é]"], ["[z-a]"], ["[/]"],
        ["a\n"], ["x" * 201], ["a"] * 21, ["[ab]" * 11], [f"{n}{'x' * 198}" for n in range(11)],
        ["x" * 199 + "/"],
    ],
)  # fmt: skip
def test_a_pattern_without_a_meaning_is_refused(patterns: list[str]) -> None:
    with pytest.raises(PatternError):
        normalize_patterns(patterns)


def test_questions_and_repetitions_count_once() -> None:
    assert normalize_patterns(["a//b/", "a/b/**", "?" * 40]) == ("a/b/**", "?" * 40)
    assert len(normalize_patterns(["**/" * 66 + "a"])[0]) < MAX_PATTERN_CHARS
