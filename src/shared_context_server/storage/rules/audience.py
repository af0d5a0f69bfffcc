"""The parameters by which the SQL of a store knows a caller: rights to sessions, and audience keys.

An audience key names those whom a message is addressed to: everyone, an agent type, or a single agent
(the sender of a private message is one of them). A message for admins only has none. A message has
one visibility, hence keys of one kind; a caller has one key of each kind, and sees the messages that
have one of its keys. The column of the keys is `audience.name`.
"""

from __future__ import annotations

from shared_context_server.models import Caller, Permission, Visibility

_EVERYONE = "*"
_SENDER_MARK = "\x1f"
"""Stands between a key and a sender: each message also has its keys with its sender's id behind them."""


def audience_keys(
    caller: Caller, only: Visibility | None = None, sender: str | None = None
) -> dict[str, str | None]:
    """Return the caller's keys as the parameters name_{visibility} of statements. `only`: the other
    visibilities' keys are None. `sender`: the keys of the messages that this agent has sent."""
    suffix = "" if sender is None else _SENDER_MARK + sender
    keys = {
        Visibility.PUBLIC: _EVERYONE,
        Visibility.AGENT_ONLY: f"type:{caller.agent_type}",
        Visibility.PRIVATE: f"agent:{caller.agent_id}",
    }
    return {
        f"name_{visibility}": key + suffix if only in (None, visibility) else None
        for visibility, key in keys.items()
    }


def session_rights(caller: Caller) -> dict[str, bool | str]:
    """Return what `policy.can_see_session` asks of a caller, as parameters of a store's CAN_SEE_SESSION."""
    return {
        "is_admin": caller.is_admin,
        "may_use": not caller.permissions.isdisjoint({Permission.READ, Permission.WRITE}),
        "agent_id": caller.agent_id,
    }
