"""The Storage protocol over one writer and a pool of readers.

Which of the two a method uses is all that is decided here; the subjects' modules do the work.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from shared_context_server.errors import Unavailable
from shared_context_server.models import (
    Agent,
    ApiKey,
    AuditEntry,
    Caller,
    Credential,
    Event,
    Lease,
    MemoryAddress,
    MemoryEntry,
    Message,
    Session,
    SessionStatus,
    SessionSummary,
)
from shared_context_server.storage.base import (
    AddedMessage,
    AuditQuery,
    AuthState,
    Bell,
    Changes,
    Fence,
    LeaseAttempt,
    MemoryListing,
    MemoryUpdate,
    MessagePage,
    MessageQuery,
    NewMessage,
    NewMessages,
    NewSession,
    Page,
    PresenceChange,
    SenderCount,
    SessionGuard,
    StoreStats,
    TailPosition,
    WrittenMemory,
)
from shared_context_server.storage.idempotency import find_memory_call
from shared_context_server.storage.sqlite import (
    agents,
    audit,
    changes,
    clock_offsets,
    feed,
    identity,
    leases,
    memory,
    messages,
    removal,
    sessions,
)
from shared_context_server.storage.sqlite.doorbells import Doorbells
from shared_context_server.storage.sqlite.readers import Readers
from shared_context_server.storage.sqlite.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")


class SqliteStorage:
    """Made by open_sqlite."""

    def __init__(self, writer: Writer, readers: Readers, meeting_dir: Path) -> None:
        self._writer = writer
        self._readers = readers
        self._meeting_dir = meeting_dir
        self._bells: list[Bell] = []

    async def _write(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return await self._writer.run(lambda connection: function(connection, *args, **kwargs))

    async def _read(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return await self._readers.run(lambda connection: function(connection, *args, **kwargs))

    def begin_closing(self) -> None:
        """A file does not fall silent, and waiting for another process's lock has its own bound."""

    async def aclose(self) -> None:
        for bell in self._bells:
            bell.close()
        try:
            await self._readers.aclose()
        finally:
            # Last, because the last connection to close folds the WAL into the database.
            await self._writer.aclose()

    async def ping(self) -> None:
        await self._read(_do_nothing)
        await self._write(_write_something)

    # Sessions

    async def create_session(self, new: NewSession, audit: AuditEntry) -> Session:
        return await self._write(sessions.add_session, new, audit)

    async def get_session(self, session_id: str) -> Session:
        return await self._read(sessions.use_session, session_id)

    async def list_sessions(
        self,
        caller: Caller,
        *,
        status: SessionStatus | None,
        created_by: str | None,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> Page[SessionSummary]:
        return await self._read(
            sessions.list_sessions,
            caller,
            status=status,
            created_by=created_by,
            limit=limit,
            before=before,
        )

    async def summarize_session(
        self, session_id: str, caller: Caller, guard: SessionGuard
    ) -> SessionSummary:
        return await self._read(_summarize, session_id, caller, guard)

    async def list_participants(
        self, session_id: str, caller: Caller, guard: SessionGuard, *, limit: int
    ) -> list[str]:
        return await self._read(_list_participants, session_id, caller, guard, limit)

    async def close_session(
        self, session_id: str, closed_at: datetime, guard: SessionGuard, audit: AuditEntry
    ) -> Session:
        return await self._write(sessions.close_session, session_id, closed_at, guard, audit)

    async def delete_session(self, session_id: str, guard: SessionGuard, audit: AuditEntry) -> None:
        await self._write(sessions.mark_deleted, session_id, guard, audit)
        # From here on it is deleted. What cannot be removed just now, purge removes.
        with contextlib.suppress(Unavailable):
            await self._remove_rows(session_id)

    async def _remove_rows(self, session_id: str) -> int:
        total = 0
        while removed := await self._write(removal.remove_step, session_id):
            total += removed
        return total

    # Messages

    async def add_message(self, new: NewMessage, guard: SessionGuard) -> AddedMessage:
        return await self._write(messages.add_message, new, guard)

    async def list_messages(
        self, session_id: str, caller: Caller, query: MessageQuery, guard: SessionGuard
    ) -> MessagePage:
        return await self._read(messages.list_messages, session_id, caller, query, guard)

    async def get_message(
        self, session_id: str, message_id: int, caller: Caller, guard: SessionGuard
    ) -> Message:
        return await self._read(messages.get_message, session_id, message_id, caller, guard)

    async def read_log(
        self,
        session_id: str,
        *,
        after_seq: int,
        before_seq: int | None = None,
        limit: int,
        guard: SessionGuard,
    ) -> list[Message]:
        return await self._read(
            messages.read_log,
            session_id,
            after_seq=after_seq,
            before_seq=before_seq,
            limit=limit,
            guard=guard,
        )

    async def count_by_sender(
        self, session_id: str, caller: Caller, *, after_seq: int, guard: SessionGuard
    ) -> list[SenderCount]:
        return await self._read(
            messages.count_by_sender, session_id, caller, after_seq=after_seq, guard=guard
        )

    async def get_newest_message_id(self) -> int:
        return await self._read(feed.get_newest_message_id)

    async def list_new_messages(self, caller: Caller, *, after_id: int, limit: int) -> NewMessages:
        return await self._read(feed.list_new_messages, caller, after_id=after_id, limit=limit)

    async def get_cursor(self, session_id: str, agent_id: str) -> int:
        return await self._read(_get_cursor, session_id, agent_id)

    async def set_cursor(
        self, session_id: str, caller: Caller, seq: int, guard: SessionGuard
    ) -> tuple[int, int]:
        return await self._write(sessions.set_cursor, session_id, caller, seq, guard)

    # Memory

    async def write_memory(
        self,
        address: MemoryAddress,
        caller: Caller,
        update: MemoryUpdate,
        *,
        now: datetime,
        guard: SessionGuard | None,
        idempotency_key: str | None = None,
        fingerprint: str = "",
        fence: Fence | None = None,
    ) -> WrittenMemory:
        call = find_memory_call(address, caller, idempotency_key, fingerprint)
        return await self._write(
            memory.write_memory,
            address,
            caller,
            update,
            now=now,
            guard=guard,
            call=call,
            fence=fence,
        )

    async def get_memory(
        self, address: MemoryAddress, *, now: datetime, guard: SessionGuard | None
    ) -> MemoryEntry:
        return await self._read(memory.get_memory, address, now=now, guard=guard)

    async def list_memory(
        self,
        *,
        session_id: str | None,
        owner: str | None,
        prefix: str,
        limit: int,
        after_key: str | None,
        now: datetime,
        guard: SessionGuard | None,
    ) -> Page[MemoryListing]:
        return await self._read(
            memory.list_memory,
            session_id=session_id,
            owner=owner,
            prefix=prefix,
            limit=limit,
            after_key=after_key,
            now=now,
            guard=guard,
        )

    async def delete_memory(
        self,
        address: MemoryAddress,
        check: Callable[[MemoryEntry], None],
        *,
        now: datetime,
        guard: SessionGuard | None,
        audit: AuditEntry,
    ) -> None:
        await self._write(memory.delete_memory, address, check, now=now, guard=guard, audit=audit)

    # Leases

    async def acquire_lease(
        self,
        session_id: str | None,
        name: str,
        caller: Caller,
        *,
        ttl: timedelta,
        now: datetime,
        guard: SessionGuard | None,
    ) -> LeaseAttempt:
        return await self._write(
            leases.acquire_lease, session_id, name, caller, ttl=ttl, now=now, guard=guard
        )

    async def release_lease(
        self,
        session_id: str | None,
        name: str,
        caller: Caller,
        fencing_token: int,
        *,
        now: datetime,
        guard: SessionGuard | None,
        expires_at: datetime | None = None,
    ) -> bool:
        return await self._write(
            leases.release_lease,
            session_id,
            name,
            caller,
            fencing_token,
            now=now,
            guard=guard,
            expires_at=expires_at,
        )

    async def list_leases(
        self,
        session_id: str | None,
        *,
        limit: int,
        after_name: str = "",
        now: datetime,
        guard: SessionGuard | None,
    ) -> list[Lease]:
        return await self._read(
            leases.list_leases,
            session_id,
            limit=limit,
            after_name=after_name,
            now=now,
            guard=guard,
        )

    async def purge(
        self, *, expired_before: datetime, idempotency_before: datetime, audit_before: datetime
    ) -> int:
        total = 0
        for session_id in await self._read(removal.list_deleted):
            total += await self._remove_rows(session_id)
        while removed := await self._write(
            removal.purge_step,
            expired_before=expired_before,
            idempotency_before=idempotency_before,
            audit_before=audit_before,
        ):
            total += removed
        return total

    # The tail

    @property
    def meeting_dir(self) -> Path:
        """Where the processes that serve this file leave their sockets; need not exist."""
        return self._meeting_dir

    def open_bell(self, on_ring: Callable[[], None]) -> Bell:
        bell = Doorbells(self._meeting_dir, on_ring)
        self._bells.append(bell)
        return bell

    async def get_tail_position(self) -> TailPosition:
        return await self._read(changes.read_position)

    async def read_changes(self, after: TailPosition, limit: int) -> Changes:
        return await self._read(changes.read_changes, after, limit)

    async def add_changes(self, events: Sequence[Event]) -> None:
        if events:
            await self._write(changes.add_changes, events)

    # Identity

    async def get_auth_state(self, known_generation: int | None) -> AuthState | None:
        return await self._read(identity.read_auth_state, known_generation)

    async def add_key(self, key: ApiKey, audit: AuditEntry) -> None:
        await self._write(identity.add_key, key, audit)

    async def list_keys(self) -> list[ApiKey]:
        return await self._read(identity.list_keys)

    async def revoke_key(self, key_id: str, at: datetime, audit: AuditEntry) -> bool:
        return await self._write(identity.revoke_key, key_id, at, audit)

    async def add_credential(self, credential: Credential, audit: AuditEntry) -> None:
        await self._write(identity.add_credential, credential, audit)

    async def find_credential(self, credential_id: str) -> Credential | None:
        return await self._read(identity.find_credential, credential_id)

    async def find_credential_by_handle(self, handle_hash: str) -> Credential | None:
        return await self._read(identity.find_credential_by_handle, handle_hash)

    async def revoke_credentials(self, family_id: str, at: datetime, audit: AuditEntry) -> bool:
        return await self._write(identity.revoke_credentials, family_id, at, audit)

    # Agents and audit

    async def touch_agents(
        self, seen: Sequence[Agent], *, gone_before: datetime | None = None
    ) -> PresenceChange:
        # Looking first, because it is asked all the time, and mostly nothing is to be written.
        if not seen and (
            gone_before is None or not await self._read(agents.is_anyone_gone, gone_before)
        ):
            return PresenceChange(joined=[], left=[])
        return await self._write(agents.touch_agents, seen, gone_before)

    async def list_agents(
        self,
        session_id: str | None,
        caller: Caller,
        guard: SessionGuard | None,
        *,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> list[Agent]:
        return await self._read(
            agents.list_agents, session_id, caller, guard, limit=limit, before=before
        )

    async def find_known_agents(self, agent_ids: Sequence[str]) -> frozenset[str]:
        return await self._read(agents.find_known_agents, agent_ids)

    async def is_agent_type_known(self, agent_type: str) -> bool:
        return await self._read(agents.is_agent_type_known, agent_type)

    async def add_audit(self, entry: AuditEntry) -> None:
        await self._write(audit.add_audit, entry)

    async def list_audit(self, query: AuditQuery) -> list[AuditEntry]:
        return await self._read(audit.list_audit, query)

    async def find_clock_offset(self, boot_id: str) -> int | None:
        return await self._read(clock_offsets.find_offset, boot_id)

    async def note_clock_offset(self, boot_id: str, offset_us: int) -> None:
        await self._write(clock_offsets.note_offset, boot_id, offset_us)

    async def get_stats(self, *, active_since: datetime) -> StoreStats:
        active_sessions, active_agents = await self._read(agents.count_active, active_since)
        writer = self._writer.stats()
        return StoreStats(
            active_sessions=active_sessions,
            active_agents=active_agents,
            extra={
                "scs_writer_queue_depth": writer.queue_depth,
                "scs_writer_last_batch_size": writer.last_batch_size,
                "scs_writer_batches": writer.batches,
                "scs_writer_operations": writer.operations,
            },
        )


def _do_nothing(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT 1 FROM auth_generation").fetchone()


def _write_something(connection: sqlite3.Connection) -> None:
    """A change, because SQLite writes no page that stays as it is."""
    connection.execute(
        "UPDATE heartbeat SET written_at = max(written_at + 1, ?)", (time.time_ns(),)
    )


def _summarize(
    connection: sqlite3.Connection, session_id: str, caller: Caller, guard: SessionGuard
) -> SessionSummary:
    session = sessions.use_session(connection, session_id, guard)
    return sessions.summarize(connection, session, caller)


def _list_participants(
    connection: sqlite3.Connection,
    session_id: str,
    caller: Caller,
    guard: SessionGuard,
    limit: int,
) -> list[str]:
    session = sessions.use_session(connection, session_id, guard)
    return sessions.list_participants(connection, session, caller, limit)


def _get_cursor(connection: sqlite3.Connection, session_id: str, agent_id: str) -> int:
    sessions.use_session(connection, session_id)
    return sessions.find_cursor(connection, session_id, agent_id)
