"""Compute the SQL parameters that stand for a caller: its rights to sessions, and its audience
keys.

An audience key names who a message is addressed to: everyone, an agent type, or one agent (the
sender of a private message is one). A message for admins only has no key. A message has one
visibility, so its keys are of one kind. A caller has one key of each kind, and sees the messages
that have one of its keys. The keys are in the column `audience.name`.
"""

from __future__ import annotations

from collections.abc import Iterable

from shared_context_server.models import Caller, Permission, Visibility

_EVERYONE = "*"
_SENDER_MARK = "\x1f"
"""Stands between a key and a sender: each message also has its keys with its sender's id behind them."""


def audience_keys(
    caller: Caller, only: Visibility | None = None, sender: str | None = None
) -> dict[str, str | None]:
    """Return the caller's keys as the parameters name_{visibility} of statements. With `only`, the
    keys of other visibilities are None. `sender`: the keys for this agent's messages."""
    suffix = "" if sender is None else _SENDER_MARK + sender
    keys = _make_keys(caller.agent_id, caller.agent_type)
    return {
        f"name_{visibility}": key + suffix if only in (None, visibility) else None
        for visibility, key in keys.items()
    }


def audience_key(agent_id: str, agent_type: str, visibility: Visibility) -> str:
    """Return the key with which an agent sees messages of this visibility, which is not admin_only."""
    return _make_keys(agent_id, agent_type)[visibility]


def keys_of_message(
    visibility: Visibility, sender: str, sender_type: str, recipients: Iterable[str]
) -> set[str]:
    """Return all keys of a message, also those with its sender's id: the names of its rows in
    `audience`, which the schema's triggers write."""
    if visibility is Visibility.ADMIN_ONLY:
        return set()
    agents = {sender, *recipients} if visibility is Visibility.PRIVATE else {sender}
    keys = {audience_key(agent_id, sender_type, visibility) for agent_id in agents}
    return keys | {f"{key}{_SENDER_MARK}{sender}" for key in keys}


def _make_keys(agent_id: str, agent_type: str) -> dict[Visibility, str]:
    return {
        Visibility.PUBLIC: _EVERYONE,
        Visibility.AGENT_ONLY: f"type:{agent_type}",
        Visibility.PRIVATE: f"agent:{agent_id}",
    }


def session_rights(caller: Caller) -> dict[str, bool | str]:
    """Return the parameters of a store's CAN_SEE_SESSION, which does what policy.can_see_session
    does."""
    return {
        "is_admin": caller.is_admin,
        "may_use": not caller.permissions.isdisjoint({Permission.READ, Permission.WRITE}),
        "agent_id": caller.agent_id,
    }
