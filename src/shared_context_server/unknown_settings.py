"""Find variables that look like settings but are not, such as misspelt ones, for a warning at the start."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared_context_server.environment import (
    CLIENT_VARIABLES,
    ENV_FILE,
    PREFIX,
    READ_UNPREFIXED,
    Source,
)
from shared_context_server.settings import Settings

# An unknown variable without our prefix is reported if it begins like this, or if its name is this
# similar to that of a setting (ratio of difflib).
_SETTING_PREFIXES = ("MCP_", "SQLITE_", "CLOCK_", "JWT_", "CORS_")
_MIN_SIMILARITY = 0.88
_MIN_SIMILARITY_OF_OURS = 0.6  # for variables that begin like ours
_SETTINGS = {name.upper() for name in Settings.model_fields} | {ENV_FILE}
_CLIENT_NAMES = {name.removeprefix(PREFIX) for name in CLIENT_VARIABLES}
_PREFIXED = {PREFIX + name for name in _SETTINGS} | CLIENT_VARIABLES | {READ_UNPREFIXED}

# Names of other servers, and of what is no setting here, without the prefix.
_REPLACEMENTS = {
    "MCP_TRANSPORT": "Use the option --transport of serve.",
    "DATABASE_PATH": "Set {prefix}DATABASE_URL=sqlite:///absolute/path.db, or {prefix}DATA_DIR.",
    "SQLITE_PATH": "Set {prefix}DATABASE_URL=sqlite:///absolute/path.db, or {prefix}DATA_DIR.",
    "JWT_ENCRYPTION_KEY": "Tokens are signed, not encrypted: only {prefix}JWT_SECRET_KEY is used.",
}
_PREFIXED_REPLACEMENTS = {
    "TRANSPORT": "Use the option --transport of serve.",
    "HOST": "Did you mean SCS_HTTP_HOST?",
    "PORT": "Did you mean SCS_HTTP_PORT?",
}
_LIBRARY_REPLACEMENTS = {"FORWARDED_ALLOW_IPS": "Set SCS_TRUSTED_PROXIES instead."}


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable that looks like a setting but is not one. `hint` suggests the right name."""

    variable: str
    source: str
    hint: str


def find_unknown_variables(sources: Iterable[Source]) -> list[UnknownVariable]:
    """Find the variables of all sources that look like settings but are not."""
    return [
        UnknownVariable(variable, source.name, hint)
        for source in sources
        for variable in source.values
        if (hint := _find_hint(variable, source))
    ]


def _find_hint(variable: str, source: Source) -> str | None:
    """The hint for an unknown variable; None for a setting, and for a variable of something else."""
    if variable in _PREFIXED or variable in _SETTINGS:
        return None
    bare = variable.removeprefix(PREFIX)
    prefix = PREFIX if bare != variable else ""
    if not prefix and not source.has_unprefixed:
        return None
    replacements = _REPLACEMENTS | (_PREFIXED_REPLACEMENTS if prefix else _LIBRARY_REPLACEMENTS)
    is_ours = bool(prefix) or variable.startswith(_SETTING_PREFIXES)
    similarity = _MIN_SIMILARITY_OF_OURS if is_ours else _MIN_SIMILARITY
    if close := difflib.get_close_matches(bare, replacements, n=1, cutoff=_MIN_SIMILARITY):
        return replacements[close[0]].format(prefix=prefix)
    candidates = sorted(_SETTINGS | (_CLIENT_NAMES if prefix else set()))
    nearest = _find_nearest(bare, candidates, similarity)
    if nearest is not None:
        return f"Did you mean {prefix}{nearest}?"
    return "See docs/configuration.md for all settings." if is_ours else None


def _find_nearest(name: str, candidates: Sequence[str], similarity: float) -> str | None:
    """The candidate that is nearly the same; else the shortest that begins with all words of the name,
    or the longest whose words begin the name, or one that is similar enough."""
    if close := difflib.get_close_matches(name, candidates, n=1, cutoff=_MIN_SIMILARITY):
        return close[0]
    if "_" in name and (longer := [each for each in candidates if each.startswith(f"{name}_")]):
        return min(longer, key=len)
    if similarity < _MIN_SIMILARITY:
        if shorter := [each for each in candidates if name.startswith(f"{each}_")]:
            return max(shorter, key=len)
        if close := difflib.get_close_matches(name, candidates, n=1, cutoff=similarity):
            return close[0]
    return None
