"""Suggest the known name that an unknown name was probably meant to be."""

from __future__ import annotations

import re
from collections.abc import Iterable

CLOSE_ENOUGH = 70  # percent: a name with its parts reordered still passes, other names do not
MAX_NAME_CHARS = 100  # characters compared; the start of a longer name is enough

_SEPARATORS = re.compile(r"[^a-z0-9]+")


def find_similar_name(given: str, known: Iterable[str]) -> str | None:
    """Return the known name most like the given one; None if none is similar. Names in camelCase,
    kebab-case or upper case count as equal."""
    wanted = _plain(given[:MAX_NAME_CHARS])
    if not wanted:
        return None
    from rapidfuzz import process  # noqa: PLC0415 - services.late_imports says why

    found = process.extractOne(wanted, list(known), processor=_plain, score_cutoff=CLOSE_ENOUGH)
    return None if found is None else found[0]


def suggest_name(given: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the most similar name; empty if none is similar."""
    similar = find_similar_name(given, known)
    return "" if similar is None else f"Did you mean {similar}?"


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name.lower())
