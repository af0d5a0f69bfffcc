"""What the storage tests are built of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from shared_context_server import policy
from shared_context_server.models import (
    Access,
    AuditEntry,
    Caller,
    MemoryAddress,
    MemoryEntry,
    Message,
    Permission,
    Session,
    Visibility,
)
from shared_context_server.storage.contract import (
    AddedMessage,
    MemoryUpdate,
    MemoryWrite,
    MessageQuery,
    NewMessage,
    NewSession,
    SessionGuard,
    Store,
)

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ALL = MessageQuery(limit=1000)


def at(seconds: float) -> datetime:
    """A time that many seconds behind noon."""
    return NOON + timedelta(seconds=seconds)


def make_caller(
    agent_id: str, agent_type: str = "generic", *permissions: Permission, key_id: str = "key"
) -> Caller:
    granted = frozenset(permissions or (Permission.READ, Permission.WRITE))
    return Caller(agent_id=agent_id, agent_type=agent_type, permissions=granted, key_id=key_id)


ALICE = make_caller("alice", "claude")
BOB = make_caller("bob", "claude")
CAROL = make_caller("carol", "gpt")
ADMIN = make_caller("root", "human", Permission.ADMIN)


def run_on(connection: Any, method: Any, *arguments: Any, **named: Any) -> Any:
    """Run what a store's method does, on a connection of the test's own."""
    return method.__wrapped__(None, connection, *arguments, **named)


def allow(session: Session) -> None:
    """The guard that lets everything pass."""


def reader_guard(caller: Caller) -> SessionGuard:
    return lambda session: policy.require_session_read(caller, session)


def writer_guard(caller: Caller) -> SessionGuard:
    return lambda session: policy.require_session_write(caller, session)


class Refusal(Exception):
    """What the refusing guards of the tests raise."""


def refuse(session: Session) -> None:
    raise Refusal(session.id)


def make_audit(event_type: str = "tested", **fields: Any) -> AuditEntry:
    defaults: dict[str, Any] = {"event_type": event_type, "agent_id": "alice", "timestamp": NOON}
    return AuditEntry(**defaults | fields)


def new_session(session_id: str = "session_1", **fields: Any) -> NewSession:
    defaults: dict[str, Any] = {
        "id": session_id,
        "purpose": "To test.",
        "metadata": {},
        "access": Access.OPEN,
        "created_by": "alice",
        "created_at": NOON,
    }
    return NewSession(**defaults | fields)


async def add_session(store: Store, session_id: str = "session_1", **fields: Any) -> Session:
    return await store.sessions.create(new_session(session_id, **fields), make_audit())


def new_message(session_id: str = "session_1", **fields: Any) -> NewMessage:
    defaults: dict[str, Any] = {
        "session_id": session_id,
        "sender": ALICE,
        "content": "hello",
        "visibility": Visibility.PUBLIC,
        "recipients": (),
        "metadata": {},
        "parent_message_id": None,
        "created_at": NOON,
    }
    return NewMessage(**defaults | fields)


async def add_message(
    store: Store,
    session_id: str = "session_1",
    *,
    guard: SessionGuard = allow,
    **fields: Any,
) -> AddedMessage:
    return await store.messages.append(new_message(session_id, **fields), guard)


async def list_seqs(
    store: Store, caller: Caller, session_id: str = "session_1", **query: Any
) -> list[int]:
    page = await store.messages.list_visible(
        session_id, caller, MessageQuery(**{"limit": 1000} | query), allow
    )
    return [message.seq for message in page.messages]


async def read_whole_log(store: Store, session_id: str = "session_1") -> list[Message]:
    """The log to its end, in as many pieces as that takes."""
    log: list[Message] = []
    while piece := await store.messages.read_log(
        session_id, after_seq=log[-1].seq if log else 0, limit=1000, guard=allow
    ):
        log += piece
    return log


def address(key: str, *, session_id: str | None = None, owner: str | None = None) -> MemoryAddress:
    return MemoryAddress(key=key, session_id=session_id, owner=owner)


def put(value: Any, *, expires_at: datetime | None = None, **metadata: Any) -> MemoryUpdate:
    """The update that stores this value, whatever was there."""

    def update(current: MemoryEntry | None) -> MemoryWrite:
        return MemoryWrite(value=value, metadata=metadata, expires_at=expires_at)

    return update
