"""Patterns of agent ids that a key may be bound to: * stands for any characters, also for none."""

from __future__ import annotations

import fnmatch
import re

from shared_context_server.auth.agent_names import check_agent_name
from shared_context_server.errors import InvalidArgument

_SPECIAL = re.compile(r"[?\[]")


def is_name_pattern(text: str) -> bool:
    """Whether this is a pattern and not the id of one agent."""
    return "*" in text


def check_name_pattern(pattern: str, field: str) -> InvalidArgument | None:
    """The error in a pattern, naming `field`; None if it is valid. It needs a character besides *: a key
    for all agents would be bound to nobody."""
    if not pattern.replace("*", "").strip():
        return InvalidArgument(
            f"{field}: a pattern needs characters besides '*'.",
            field=field,
            suggestion="Give all agents of a group a common beginning, such as 'team-*'.",
        )
    return check_agent_name(pattern, field)


def matches_pattern(name: str, pattern: str) -> bool:
    """Whether the pattern allows this agent id. Upper and lower case differ."""
    # fnmatch would read ? and [ as special, too. Its expressions take no exponential time.
    return fnmatch.fnmatchcase(name, _SPECIAL.sub(lambda found: f"[{found[0]}]", pattern))
