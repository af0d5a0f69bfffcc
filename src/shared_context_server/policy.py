"""Authorization: all rules of who may see and do what.

Every surface uses these rules, directly or through a service. Each store repeats `can_see_message`
once as an SQL condition; a property test compares both.
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
    Task,
    Visibility,
)


def require_permission(caller: Caller, permission: Permission) -> None:
    """Raise Unauthenticated for an anonymous caller, PermissionDenied without `permission`.

    Admin includes read and write.
    """
    if caller.is_anonymous:
        raise Unauthenticated("The request has no credential.")
    if permission not in caller.permissions and not caller.is_admin:
        raise PermissionDenied(
            f"This call needs the permission {permission.value!r}.",
            permission=permission.value,
            suggestion=f"Use a key or token with {permission.value!r}; the operator of the server "
            "issues them.",
        )


def permissions_without_authentication(
    key_permissions: frozenset[Permission] | None,
) -> frozenset[Permission]:
    """The permissions of a caller under AUTH_ENABLED=false, with a key of `key_permissions` (None: no
    valid key). Everyone may read and write; admin still needs a key with that permission."""
    read_write = frozenset({Permission.READ, Permission.WRITE})
    return read_write if key_permissions is None else read_write | key_permissions


def may_read(caller: Caller) -> bool:
    """Whether the caller may read data that others have written."""
    return caller.is_admin or Permission.READ in caller.permissions


def can_see_session(caller: Caller, session: Session) -> bool:
    """Whether the caller may know of the session. Open sessions: every caller with read or write.
    Invited sessions: the creator, the participants and admins."""
    if caller.is_admin:
        return True
    if Permission.READ not in caller.permissions and Permission.WRITE not in caller.permissions:
        return False
    return session.access is Access.OPEN or is_member(caller, session)


def is_member(caller: Caller, session: Session) -> bool:
    """Whether the caller is the creator or an invited participant of the session."""
    return caller.agent_id == session.created_by or caller.agent_id in session.invited


def require_session_read(caller: Caller, session: Session) -> None:
    """Raise SessionNotFound unless the caller may read the session: its existence is secret, too."""
    require_permission(caller, Permission.READ)
    if not can_see_session(caller, session):
        raise SessionNotFound(session.id)


def require_session_write(caller: Caller, session: Session) -> None:
    """Raise SessionNotFound, PermissionDenied or SessionClosed unless the caller may write."""
    require_permission(caller, Permission.WRITE)
    if not can_see_session(caller, session):
        raise SessionNotFound(session.id)
    if session.status is not SessionStatus.ACTIVE:
        raise SessionClosed(session.id)


def require_session_work(caller: Caller, session: Session) -> None:
    """Raise an error unless the caller may write to the session and read what others wrote there: a
    worker is given the text of its task."""
    require_permission(caller, Permission.READ)
    require_session_write(caller, session)


def can_claim(caller: Caller, task: Task) -> bool:
    """Whether the caller, who may work in the session, may claim the task: it is assigned to nobody
    else."""
    return task.assignee is None or task.assignee == caller.agent_id


def require_session_control(caller: Caller, session: Session) -> None:
    """Raise an error unless the caller may close and delete the session: the creator and admins."""
    require_permission(caller, Permission.WRITE)
    if not can_see_session(caller, session):
        raise SessionNotFound(session.id)
    if not caller.is_admin and caller.agent_id != session.created_by:
        raise PermissionDenied(
            "Only the session's creator or an admin may do this.", session_id=session.id
        )


def is_own_message(caller: Caller, message: Message) -> bool:
    """Whether the caller wrote the message, in this thread of its client: it wakes no wait of
    theirs."""
    return message.sender == caller.agent_id and message.sender_instance == caller.instance


def can_see_message(caller: Caller, message: Message) -> bool:
    """Whether the caller, who may read the session, sees this message."""
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
    """Whether the caller, who may write to the session, may reply to this message: it must be visible
    to them, and they need read permission or must be its sender."""
    return can_see_message(caller, message) and (
        may_read(caller) or message.sender == caller.agent_id
    )


def can_acknowledge(caller: Caller, message: Message) -> bool:
    """Whether the caller, who may see the message and write to the session, may acknowledge it: its
    recipients may; if it has none, everyone but its sender."""
    if message.sender == caller.agent_id:
        return False
    return not message.recipients or caller.agent_id in message.recipients


def can_see_acknowledgements(caller: Caller, message: Message) -> bool:
    """Whether the caller, who may see the message, may know who has acknowledged it."""
    return caller.is_admin or message.sender == caller.agent_id


def can_count_unread(
    caller: Caller, agent_id: str, agent_type: str, visibility: Visibility
) -> bool:
    """Whether the caller, who may read the session, may know how many messages of this visibility an
    agent has not read: those that the caller sees too."""
    if caller.is_admin or caller.agent_id == agent_id:
        return True
    if visibility is Visibility.AGENT_ONLY:
        return caller.agent_type == agent_type
    return visibility is Visibility.PUBLIC


def memory_address(
    caller: Caller, key: str, session_id: str | None, scope: MemoryScope
) -> MemoryAddress:
    """The address of an entry. Private memory always belongs to the caller."""
    owner = caller.agent_id if scope is MemoryScope.PRIVATE else None
    return MemoryAddress(key=key, session_id=session_id, owner=owner)


def require_own_memory(caller: Caller, agent_id: str) -> None:
    """Raise PermissionDenied for another agent's private memory, also for admins."""
    require_permission(caller, Permission.READ)
    if caller.agent_id != agent_id:
        raise PermissionDenied(
            "Only the agent itself may read its private memory.", agent_id=agent_id
        )


def hide_private_names(entry: AuditEntry) -> AuditEntry:
    """The audit entry without the key of private memory, which admins may not see."""
    if entry.details.get("scope") != MemoryScope.PRIVATE or "key" not in entry.details:
        return entry
    return replace(entry, details={n: v for n, v in entry.details.items() if n != "key"})


def can_manage_credential(caller: Caller, agent_id: str, key_id: str) -> bool:
    """Whether the caller may revoke a token: one of the same agent and key, or any as an admin."""
    return caller.is_admin or (caller.agent_id == agent_id and caller.key_id == key_id)
