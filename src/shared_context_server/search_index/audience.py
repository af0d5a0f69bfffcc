"""Say who may find a document, as terms of the index.

A document has the keys of those who may see it and, if it belongs to a session, of those who may
read the session. A search gives the keys of its caller. This repeats the rules of `policy` so that
one query of the index applies them; a property test compares both, and the policy is asked once more
for what the index finds.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared_context_server.models import (
    Access,
    Caller,
    MemoryEntry,
    MemoryScope,
    Message,
    Session,
    Visibility,
)

EVERYONE = "*"
ADMINS = "admins"


@dataclass(frozen=True, slots=True)
class Audience:
    """The keys of one document. `viewers`: who may see it. `readers`: who may read its session."""

    viewers: tuple[str, ...]
    readers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CallerKeys:
    """The keys of one caller, who finds what has one of both. `readers` None: all sessions."""

    viewers: tuple[str, ...]
    readers: tuple[str, ...] | None


def message_audience(message: Message, session: Session) -> Audience:
    viewers: list[str]
    match message.visibility:
        case Visibility.PUBLIC:
            viewers = [EVERYONE]
        case Visibility.PRIVATE:
            agents = dict.fromkeys((message.sender, *message.recipients))
            viewers = [_agent(agent_id) for agent_id in agents]
        case Visibility.AGENT_ONLY:
            viewers = [f"type:{message.sender_type}"]
        case Visibility.ADMIN_ONLY:
            viewers = []
    return Audience((*viewers, ADMINS), _session_readers(session))


def memory_audience(entry: MemoryEntry, session: Session | None) -> Audience:
    """Private memory is its owner's alone, also for admins."""
    if entry.address.scope is MemoryScope.PRIVATE:
        viewers: tuple[str, ...] = (f"owner:{entry.address.owner}",)
    else:
        viewers = (EVERYONE, ADMINS)
    return Audience(viewers, (EVERYONE,) if session is None else _session_readers(session))


def caller_keys(caller: Caller) -> CallerKeys:
    own = f"owner:{caller.agent_id}"
    if caller.is_admin:
        return CallerKeys((ADMINS, own), None)
    me = _agent(caller.agent_id)
    return CallerKeys((EVERYONE, f"type:{caller.agent_type}", me, own), (EVERYONE, me))


def _session_readers(session: Session) -> tuple[str, ...]:
    if session.access is Access.OPEN:
        return (EVERYONE,)
    members = dict.fromkeys((session.created_by, *session.invited))
    return tuple(_agent(agent_id) for agent_id in members)


def _agent(agent_id: str) -> str:
    return f"agent:{agent_id}"
