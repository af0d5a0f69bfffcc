"""The one place that decides who may see and do what.

Every surface asks here, directly or through a service. Stores repeat `can_see_message`
once, as an SQL condition; a property test holds the two together.
"""

from __future__ import annotations

from dataclasses import replace

from shared_context_server.errors import (
    PermissionDenied,
    SessionClosed,
    SessionNotFound,
    Unauthenticated,
)
from shared_context_server.models import (
    Access,
    AuditEntry,
    Caller,
    MemoryAddress,
    MemoryScope,
    Message,
    Permission,
    Session,
    SessionStatus,
    Visibility,
)


def require(caller: Caller, permission: Permission) -> None:
    """Raise Unauthenticated for the anonymous, PermissionDenied for lack of `permission`.

    Admin includes read and write.
    """
    if caller.is_anonymous:
        raise Unauthenticated("Nobody is calling: no credential was presented.")
    if permission not in caller.permissions and not caller.is_admin:
        raise PermissionDenied(
            f"This needs the permission {permission.value!r}.",
            permission=permission.value,
            suggestion=f"Call with a key or token that has {permission.value!r}; whoever runs the "
            "server gives them out.",
        )


def permissions_without_authentication(
    key_permissions: frozenset[Permission] | None,
) -> frozenset[Permission]:
    """What AUTH_ENABLED=false allows who presents a key of these permissions, None: no valid key.
    Everyone may read and write; admin still takes a key that allows it."""
    everyones = frozenset({Permission.READ, Permission.WRITE})
    return everyones if key_permissions is None else everyones | key_permissions


def may_read(caller: Caller) -> bool:
    """Whether the caller may be told anything that somebody else has written."""
    return caller.is_admin or Permission.READ in caller.permissions


def can_see_session(caller: Caller, session: Session) -> bool:
    """Open sessions: whoever may read. Invited ones: creator, participants, admins."""
    if caller.is_admin:
        return True
    if Permission.READ not in caller.permissions and Permission.WRITE not in caller.permissions:
        return False
    return session.access is Access.OPEN or is_member(caller, session)


def is_member(caller: Caller, session: Session) -> bool:
    """Whether the caller created the session or is one of its invited participants."""
    return caller.agent_id == session.created_by or caller.agent_id in session.invited


def require_session_read(caller: Caller, session: Session) -> None:
    """Raise SessionNotFound unless the caller may read: existence is not disclosed either."""
    require(caller, Permission.READ)
    if not can_see_session(caller, session):
        raise SessionNotFound(session.id)


def require_session_write(caller: Caller, session: Session) -> None:
    """Raise SessionNotFound, PermissionDenied or SessionClosed unless the caller may write."""
    require(caller, Permission.WRITE)
    if not can_see_session(caller, session):
        raise SessionNotFound(session.id)
    if session.status is not SessionStatus.ACTIVE:
        raise SessionClosed(session.id)


def require_session_control(caller: Caller, session: Session) -> None:
    """Closing and deleting is for the creator and admins."""
    require(caller, Permission.WRITE)
    if not can_see_session(caller, session):
        raise SessionNotFound(session.id)
    if not caller.is_admin and caller.agent_id != session.created_by:
        raise PermissionDenied(
            "Only the session's creator or an admin may do this.", session_id=session.id
        )


def can_see_message(caller: Caller, message: Message) -> bool:
    """Whether one who may read the session sees this message in it."""
    if caller.is_admin:
        return True
    match message.visibility:
        case Visibility.PUBLIC:
            return True
        case Visibility.PRIVATE:
            return caller.agent_id == message.sender or caller.agent_id in message.recipients
        case Visibility.AGENT_ONLY:
            return caller.agent_type == message.sender_type
        case Visibility.ADMIN_ONLY:
            return False


def can_reply_to(caller: Caller, message: Message) -> bool:
    """Whether one who may write in the session may name this message as a parent: what the caller
    may read, and what it wrote itself and would see."""
    return can_see_message(caller, message) and (
        may_read(caller) or message.sender == caller.agent_id
    )


def memory_address(
    caller: Caller, key: str, session_id: str | None, scope: MemoryScope
) -> MemoryAddress:
    """The place `scope` means for this caller: private memory is only ever the caller's own."""
    owner = caller.agent_id if scope is MemoryScope.PRIVATE else None
    return MemoryAddress(key=key, session_id=session_id, owner=owner)


def require_own_memory(caller: Caller, agent_id: str) -> None:
    """Private memory stays the agent's own, admins included."""
    require(caller, Permission.READ)
    if caller.agent_id != agent_id:
        raise PermissionDenied("Private memory is the agent's own.", agent_id=agent_id)


def hide_private_names(entry: AuditEntry) -> AuditEntry:
    """The audit entry as admins may see it: what an agent calls its private memory is its own."""
    if entry.details.get("scope") != MemoryScope.PRIVATE or "key" not in entry.details:
        return entry
    return replace(entry, details={n: v for n, v in entry.details.items() if n != "key"})


def can_manage_credential(caller: Caller, agent_id: str, key_id: str) -> bool:
    """Own tokens, that is those of the same agent under the same key, or any for an admin."""
    return caller.is_admin or (caller.agent_id == agent_id and caller.key_id == key_id)
