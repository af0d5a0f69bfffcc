"""The name that was meant, when a name is not known."""

from __future__ import annotations

import re
from collections.abc import Iterable

CLOSE_ENOUGH = 70  # percent: the parts of a name in another order still pass, other names do not
MAX_NAME_CHARS = 100  # of a longer one the start says enough

_SEPARATORS = re.compile(r"[^a-z0-9]+")


def find_similar_name(given: str, known: Iterable[str]) -> str | None:
    """The known name most like the given one, None when none is. camelCase, kebab-case and
    upper case are the same name."""
    wanted = _plain(given[:MAX_NAME_CHARS])
    if not wanted:
        return None
    from rapidfuzz import process  # noqa: PLC0415 - services.late_imports says why

    found = process.extractOne(wanted, list(known), processor=_plain, score_cutoff=CLOSE_ENOUGH)
    return None if found is None else found[0]


def suggest_name(given: str, known: Iterable[str]) -> str:
    """A sentence that asks whether the most similar name was meant; empty when none is similar."""
    similar = find_similar_name(given, known)
    return "" if similar is None else f"Did you mean {similar}?"


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name.lower())
