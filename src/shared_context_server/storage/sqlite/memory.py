"""Memory entries on SQLite: versions, expiry, listing by prefix."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime

from shared_context_server.errors import MemoryNotFound
from shared_context_server.models import (
    AuditEntry,
    Caller,
    MemoryAddress,
    MemoryEntry,
)
from shared_context_server.storage.codec import (
    KEYED_MEMORY_TEXT_COLUMNS,
    MEMORY_ENTRY,
    MEMORY_LISTING,
    MEMORY_LISTING_TEXT_COLUMNS,
    encode_json,
    encode_optional_time,
    encode_time,
    to_keyed_memory_entry,
    to_memory_entry,
    to_memory_listing,
)
from shared_context_server.storage.contract import (
    Fence,
    MemoryListing,
    MemoryUpdate,
    Page,
    SessionGuard,
    WrittenMemory,
)
from shared_context_server.storage.rules.idempotency import (
    check_write,
    find_memory_call,
    memory_answer,
    to_duplicate_memory,
)
from shared_context_server.storage.rules.memory import end_of_prefix, make_entry
from shared_context_server.storage.rules.pages import take_page
from shared_context_server.storage.sqlite.audit import add_audit
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes
from shared_context_server.storage.sqlite.idempotency import find_record, keep_answer
from shared_context_server.storage.sqlite.leases import check_fence
from shared_context_server.storage.sqlite.sessions import use_optional_session

_UNEXPIRED = "(expires_at IS NULL OR expires_at > :now)"
_AT_ADDRESS = "session_id = :session_id AND owner = :owner AND key = :key"

_FIND = f"SELECT {MEMORY_ENTRY} FROM memory WHERE {_AT_ADDRESS} AND {_UNEXPIRED}"
_PUT = """
    INSERT INTO memory (
        session_id, owner, key, version, created_at, updated_at, updated_by, expires_at,
        size_bytes, metadata, value)
    VALUES (
        :session_id, :owner, :key, :version, :created_at, :updated_at, :updated_by, :expires_at,
        :size_bytes, :metadata, :value)
    ON CONFLICT (session_id, owner, key) DO UPDATE SET
        version = excluded.version, created_at = excluded.created_at,
        updated_at = excluded.updated_at, updated_by = excluded.updated_by,
        expires_at = excluded.expires_at, size_bytes = excluded.size_bytes,
        metadata = excluded.metadata, value = excluded.value"""
_REMOVE = f"DELETE FROM memory WHERE {_AT_ADDRESS}"
_LIST = f"""
    SELECT {MEMORY_LISTING} FROM memory
    WHERE session_id = :session_id AND owner = :owner
      AND key >= :from_key AND key < :end_key AND {_UNEXPIRED}
    ORDER BY key LIMIT :limit"""
_LIST_ALL = f"""
    SELECT session_id, owner, key, {MEMORY_ENTRY} FROM memory
    WHERE (session_id, owner, key) > (:session_id, :owner, :key) AND {_UNEXPIRED}
    ORDER BY session_id, owner, key LIMIT :limit"""

_BEHIND_ALL_TEXT = b""  # SQLite sorts every BLOB after every TEXT


class Memory(Subject):
    """Memory entries. See contract/memory.py."""

    @writes
    def write(
        self,
        connection: sqlite3.Connection,
        address: MemoryAddress,
        caller: Caller,
        update: MemoryUpdate,
        *,
        now: datetime,
        guard: SessionGuard | None,
        idempotency_key: str | None = None,
        fingerprint: str = "",
        fence: Fence | None = None,
        audit: AuditEntry | None = None,
    ) -> WrittenMemory:
        call = find_memory_call(address, caller, idempotency_key, fingerprint)
        session = use_optional_session(connection, address.session_id, None)
        record = None if call is None else find_record(connection, call)
        first = check_write(call, record, session, guard)
        if first is not None:
            return WrittenMemory(to_duplicate_memory(address, first), duplicate=True)
        if fence is not None:
            check_fence(connection, address.session_id, fence, caller, now)
        current = _find(connection, address, now)
        entry = make_entry(address, caller, current, update(current), now)
        _put(connection, entry)
        if call is not None:
            keep_answer(connection, call, memory_answer(entry), now)
        if audit is not None:
            add_audit(connection, audit)
        return WrittenMemory(entry)

    @reads
    def get(
        self,
        connection: sqlite3.Connection,
        address: MemoryAddress,
        *,
        now: datetime,
        guard: SessionGuard | None,
    ) -> MemoryEntry:
        return _get(connection, address, now, guard)

    @reads
    def list_entries(
        self,
        connection: sqlite3.Connection,
        *,
        session_id: str | None,
        owner: str | None,
        prefix: str,
        limit: int,
        after_key: str | None,
        now: datetime,
        guard: SessionGuard | None,
    ) -> Page[MemoryListing]:
        use_optional_session(connection, session_id, guard)
        end_key = end_of_prefix(prefix)
        found = connection.execute(
            _LIST,
            {
                **_scope_columns(session_id, owner),
                # No text lies between a key and the key + NUL.
                "from_key": prefix if after_key is None else max(prefix, after_key + "\0"),
                "end_key": _BEHIND_ALL_TEXT if end_key is None else end_key,
                "now": encode_time(now),
                "limit": limit + 1,
            },
        )
        rows, has_more = take_page(found, limit, MEMORY_LISTING_TEXT_COLUMNS)
        return Page([to_memory_listing(session_id, owner, row) for row in rows], has_more)

    @reads
    def list_all(
        self,
        connection: sqlite3.Connection,
        *,
        after: MemoryAddress | None,
        limit: int,
        now: datetime,
    ) -> list[MemoryEntry]:
        start = {"session_id": "", "owner": "", "key": ""} if after is None else _where(after)
        found = connection.execute(
            _LIST_ALL, {**start, "now": encode_time(now), "limit": limit + 1}
        )
        rows, _ = take_page(found, limit, KEYED_MEMORY_TEXT_COLUMNS)
        return [to_keyed_memory_entry(row) for row in rows]

    @writes
    def delete(
        self,
        connection: sqlite3.Connection,
        address: MemoryAddress,
        check: Callable[[MemoryEntry], None],
        *,
        now: datetime,
        guard: SessionGuard | None,
        audit: AuditEntry,
    ) -> None:
        check(_get(connection, address, now, guard))
        connection.execute(_REMOVE, _where(address))
        add_audit(connection, audit)


def _scope_columns(session_id: str | None, owner: str | None) -> dict[str, str]:
    return {"session_id": session_id or "", "owner": owner or ""}


def _where(address: MemoryAddress) -> dict[str, str]:
    return {"key": address.key, **_scope_columns(address.session_id, address.owner)}


def _find(
    connection: sqlite3.Connection, address: MemoryAddress, now: datetime
) -> MemoryEntry | None:
    row = connection.execute(_FIND, {"now": encode_time(now), **_where(address)}).fetchone()
    return None if row is None else to_memory_entry(address, row)


def _put(connection: sqlite3.Connection, entry: MemoryEntry) -> None:
    value = encode_json(entry.value)
    connection.execute(
        _PUT,
        {
            **_where(entry.address),
            "version": entry.version,
            "created_at": encode_time(entry.created_at),
            "updated_at": encode_time(entry.updated_at),
            "updated_by": entry.updated_by,
            "expires_at": encode_optional_time(entry.expires_at),
            "size_bytes": len(value.encode()),
            "metadata": encode_json(entry.metadata),
            "value": value,
        },
    )


def _get(
    connection: sqlite3.Connection,
    address: MemoryAddress,
    now: datetime,
    guard: SessionGuard | None,
) -> MemoryEntry:
    use_optional_session(connection, address.session_id, guard)
    entry = _find(connection, address, now)
    if entry is None:
        raise MemoryNotFound(address.key)
    return entry
