"""Patterns of paths: check them, and decide exactly whether two lists of them have a path in common.

A pattern is a path relative to the project, with `/`. In it `*` stands for any text within a name, `?`
for one character of a name, `[a-z]` and `[!a-z]` for one character of a class, and the name `**` for
any number of folders, or at the end for everything below. A pattern that ends with `/` means
everything below too.

Each pattern is an automaton whose states are the places between its tokens, so patterns share a path
if both automata can read one path to the end. The states of all patterns of one list are the bits of
one integer. The other patterns are read token by token, which moves all those states in a few
operations. So the time is linear in the length of the patterns, whatever they contain.

Paths have no empty names: no `//`, and no `/` at the start or end. A set of states is therefore kept
in two parts: those that are reached at the start of a name, and those reached within one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

MAX_PATTERNS = 20
MAX_PATTERN_CHARS = 200
MAX_CHARS = 2000  # of a list of patterns
MAX_CLASSES = 10  # [...] in a list of patterns

_ASCII = 128
_OTHERS = 1 << _ASCII  # stands for all characters that are not ASCII
_ALL_CHARS = (_OTHERS << 1) - 1
_SLASH = 1 << ord("/")
_NAME_CHARS = _ALL_CHARS & ~_SLASH

# A token is a character (str), a class (int: a bit for each character), or one of these.
_NAME_END = "/"
_STAR, _FOLDERS, _BELOW = (0,), (1,), (2,)  # *, **/, ** at the end
_Token = str | int | tuple[int]


class PatternError(ValueError):
    """A pattern has no meaning. The text says why."""


def normalize_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns in their usual form, without repetitions. Raises PatternError."""
    if len(patterns) > MAX_PATTERNS:
        raise PatternError(f"at most {MAX_PATTERNS} patterns are allowed")
    normal = tuple(dict.fromkeys(map(_normalize, patterns)))
    if sum(map(len, normal)) > MAX_CHARS:
        raise PatternError(f"all patterns together may have {MAX_CHARS} characters")
    tokens = (token for one in normal for token in _parse(one))
    if sum(isinstance(token, int) and token != _NAME_CHARS for token in tokens) > MAX_CLASSES:
        raise PatternError(f"all patterns together may have {MAX_CLASSES} classes [...]")
    return normal


def _normalize(pattern: str) -> str:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise PatternError(f"a pattern may have {MAX_PATTERN_CHARS} characters")
    text = unicodedata.normalize("NFC", pattern)
    if not text.isprintable():
        raise PatternError("a pattern must not have control characters or line ends")
    if "\\" in text:
        raise PatternError(f"{text!r} has a backslash; write / between names")
    if text.startswith("/") or text[1:3] == ":/":
        raise PatternError(f"{text!r} is absolute; write it relative to the project")
    names = [name for name in text.split("/") if name not in ("", ".")]
    if ".." in names:
        raise PatternError(f"{text!r} contains '..'")
    if text.endswith("/") and names and names[-1] != "**":
        names.append("**")
    short: list[str] = []
    for name in names:
        if name != "**":
            while "**" in name:
                name = name.replace("**", "*")
        elif short and short[-1] == "**":
            continue
        short.append(name)
    if not short:
        raise PatternError(f"{text!r} names no path")
    normal = "/".join(short)
    if len(normal) > MAX_PATTERN_CHARS:
        raise PatternError(f"a pattern may have {MAX_PATTERN_CHARS} characters")
    _parse(normal)
    return normal


@lru_cache(1024)
def _parse(pattern: str) -> tuple[_Token, ...]:
    tokens: list[_Token] = []
    *folders, last = pattern.split("/")
    for name in folders:
        if name == "**":
            tokens.append(_FOLDERS)
        else:
            tokens += [*_parse_name(name), "/"]
    tokens += [_BELOW] if last == "**" else _parse_name(last)
    return tuple(tokens)


def _parse_name(name: str) -> Iterable[_Token]:
    at = 0
    while at < len(name):
        char = name[at]
        at += 1
        if char == "*":
            yield _STAR
        elif char == "?":
            yield _NAME_CHARS
        elif char == "[":
            end = name.find("]", at + 1 + (name[at : at + 1] in ("!", "^")))
            if end < 0:
                raise PatternError(f"{name!r} has a [ without a ]; [[] stands for the character")
            yield _parse_class(name[at:end])
            at = end + 1
        else:
            yield char


def _parse_class(text: str) -> int:
    is_negated = text[0] in "!^"
    members = text[1:] if is_negated else text
    if not members.isascii():
        raise PatternError(f"[{text}] has a character that is not ASCII")
    chars, at = 0, 0
    while at < len(members):
        first = last = members[at]
        if members[at + 1 : at + 2] == "-" and at + 2 < len(members):
            last = members[at + 2]
            at += 2
        if first > last:
            raise PatternError(f"[{text}] has a range that runs backwards")
        chars |= (2 << ord(last)) - (1 << ord(first))
        at += 1
    chars = (_ALL_CHARS & ~chars if is_negated else chars) & ~_SLASH
    if not chars:
        raise PatternError(f"[{text}] stands for no character")
    return chars


class _Automaton:
    """The states of some patterns: bit `n` is the place before token `n`, and each pattern has one more
    bit for its end. `by_token` has the states before each token; `by_class` are the tokens that have to
    be compared with every other one."""

    __slots__ = ("by_class", "by_token", "ends", "size", "starts")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.by_token: dict[_Token, int] = {}
        self.starts = self.ends = self.size = 0
        for pattern in patterns:
            self.starts |= 1 << self.size
            for token in _parse(pattern):
                self.by_token[token] = self.by_token.get(token, 0) | 1 << self.size
                self.size += 1
            self.ends |= 1 << self.size
            self.size += 1
        self.by_class: dict[_Token, int] = {
            token: token if isinstance(token, int) else _bit_of(token)
            for token in self.by_token
            if isinstance(token, int) or (isinstance(token, str) and token.isascii())
        }


class _Joined:
    """The states of several automata, one behind the other."""

    __slots__ = ("_by_class", "_by_token", "ends", "ends_of", "size", "starts")

    def __init__(self, automata: Iterable[_Automaton]) -> None:
        self._by_token: dict[_Token, int] = {}
        self.starts = self.ends = self.size = 0
        self.ends_of: list[int] = []
        self._by_class: dict[_Token, int] = {}
        for one in automata:
            for token, states in one.by_token.items():
                self._by_token[token] = self._by_token.get(token, 0) | states << self.size
            self._by_class |= one.by_class
            self.starts |= one.starts << self.size
            self.ends |= one.ends << self.size
            self.size += one.size
            self.ends_of.append(self.size)

    def find_states(self, token: _Token) -> int:
        return self._by_token.get(token, 0)

    def list_classes(self) -> list[tuple[int, int]]:
        """Return the classes, with the states before them."""
        return [
            (chars, self.find_states(token))
            for token, chars in self._by_class.items()
            if isinstance(token, int)
        ]

    def list_ascii(self) -> list[tuple[int, int]]:
        """Return the ASCII characters as classes, with the states before them."""
        return [
            (chars, self.find_states(token))
            for token, chars in self._by_class.items()
            if isinstance(token, str)
        ]


@lru_cache(1024)
def _build(patterns: tuple[str, ...]) -> _Automaton:
    return _Automaton(patterns)


class _Reader:
    """Reads patterns with automata: finds which of their patterns share a path with them."""

    def __init__(self, automata: Iterable[_Automaton]) -> None:
        self.joined = joined = _Joined(automata)
        self._star, self._folders, self._below = map(joined.find_states, (_STAR, _FOLDERS, _BELOW))
        self._loops = self._star | self._folders | self._below
        self._slash = joined.find_states(_NAME_END)
        self._no_ends = ((1 << joined.size) - 1) & ~joined.ends
        self._name_tokens = self._others = self._no_ends & ~self._loops & ~self._slash
        self._classes = joined.list_classes()
        self._ascii = joined.list_ascii()
        for _, states in (*self._classes, *self._ascii):
            self._others &= ~states  # what is left is before characters that are not ASCII
        self._matching: dict[_Token, int] = {}

    def find(self, patterns: Iterable[str]) -> int:
        """Return the end states of the own patterns that share a path with one of these."""
        found = 0
        for pattern in patterns:
            found |= self.read(_parse(pattern))
        return found

    def read(self, tokens: Sequence[_Token]) -> int:
        """Do the same for one pattern."""
        at_start, within = self._skip(self.joined.starts, self._folders), 0
        for token in tokens:
            if token == _NAME_END:
                moved = (within & self._slash) << 1 | within & (self._folders | self._below)
                at_start, within = self._skip(moved, self._folders), 0
            elif token == _STAR:
                moved = self._step(at_start | within, self._name_tokens)
                within = self._flood(within | moved, self._name_tokens | self._star | self._below)
            elif token == _FOLDERS:
                reached = self._flood(at_start, self._no_ends)
                moved = (reached & self._slash) << 1 | reached & (self._folders | self._below)
                at_start = self._skip(at_start | moved, self._folders)
            elif token == _BELOW:
                within = self._flood(at_start, self._no_ends)
            else:
                moved = self._step(at_start | within, self._find_matching(token))
                at_start, within = 0, self._skip(moved, 0)
            if not at_start | within:
                return 0
        return within & self.joined.ends

    def _step(self, states: int, matching: int) -> int:
        """Return the states after one character of a name."""
        return (states & matching) << 1 | states & self._loops

    def _skip(self, states: int, folders: int) -> int:
        """Add the states behind tokens that may stand for nothing: at most three follow each other."""
        skipped = self._star | self._below | folders
        for _ in range(3):
            states |= (states & skipped) << 1
        return states

    def _flood(self, states: int, passable: int) -> int:
        """Add the states that are reached over runs of `passable` ones: the carry of an addition runs
        to the end of such a run."""
        return (((states & passable) + passable) ^ passable) | states

    def _find_matching(self, token: _Token) -> int:
        """Return the states before a token that can stand for the same character as this one."""
        found = self._matching.get(token)
        if found is None:
            if isinstance(token, str):
                chars = _bit_of(token)
                found = self.joined.find_states(token)
            else:
                assert isinstance(token, int)
                chars = token
                found = self._others if chars & _OTHERS else 0
                for bit, states in self._ascii:
                    if bit & chars:
                        found |= states
            for members, states in self._classes:
                if members & chars:
                    found |= states
            self._matching[token] = found
        return found


@lru_cache(256)
def _make_reader(patterns: tuple[str, ...]) -> _Reader:
    return _Reader([_build(patterns)])


def _bit_of(char: str) -> int:
    return 1 << ord(char) if ord(char) < _ASCII else _OTHERS


def find_overlap(wanted: Sequence[str], held: Sequence[Sequence[str]]) -> int | None:
    """Return the index of the first list in `held` that has a path in common with `wanted`; None if
    there is none. All patterns have to be normalized."""
    reader = _Reader(_build(tuple(patterns)) for patterns in held)
    found = reader.find(wanted)
    if not found:
        return None
    first = (found & -found).bit_length()
    return next(index for index, end in enumerate(reader.joined.ends_of) if first <= end)


def find_matching(path: str, held: Sequence[Sequence[str]]) -> list[int]:
    """Return the indexes of the lists in `held` that have a pattern which matches this path."""
    tokens = tuple(unicodedata.normalize("NFC", path))
    return [
        index for index, patterns in enumerate(held) if _make_reader(tuple(patterns)).read(tokens)
    ]
