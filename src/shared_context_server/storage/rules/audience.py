"""What a caller is to the SQL of a store: rights to sessions, and names.

The names are those, among the ones that messages are addressed to, that the caller answers to.

A message is addressed to everyone, an agent type, or single agents (the sender of a private message
is one of them); one for admins only to nobody. It has one visibility, hence one kind of name.
"""

from __future__ import annotations

from shared_context_server.models import Caller, Permission, Visibility

_EVERYONE = "*"


def _type_name(agent_type: str) -> str:
    return f"type:{agent_type}"


def _agent_name(agent_id: str) -> str:
    return f"agent:{agent_id}"


SENDER_MARK = "\x1f"
"""Between a name and a sender, in the names that the messages of one sender have too."""


def audience_keys(
    caller: Caller, only: Visibility | None = None, sender: str | None = None
) -> dict[str, str | None]:
    """By name_{visibility}. `only`: just the name that visibility goes by, the others None.
    `sender`: the names of what that agent has sent."""
    suffix = "" if sender is None else SENDER_MARK + sender
    names = {
        Visibility.PUBLIC: _EVERYONE,
        Visibility.AGENT_ONLY: _type_name(caller.agent_type),
        Visibility.PRIVATE: _agent_name(caller.agent_id),
    }
    return {
        f"name_{visibility}": name + suffix if only in (None, visibility) else None
        for visibility, name in names.items()
    }


def session_rights(caller: Caller) -> dict[str, bool | str]:
    """What `policy.can_see_session` asks of a caller, as parameters of a store's CAN_SEE_SESSION."""
    return {
        "is_admin": caller.is_admin,
        "may_use": not caller.permissions.isdisjoint({Permission.READ, Permission.WRITE}),
        "agent_id": caller.agent_id,
    }
