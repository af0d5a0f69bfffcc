"""Memory entries on PostgreSQL: versions, expiry, listing by prefix."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from shared_context_server.errors import MemoryNotFound
from shared_context_server.models import AuditEntry, Caller, MemoryAddress, MemoryEntry
from shared_context_server.storage.codec import (
    KEYED_MEMORY_TEXT_COLUMNS,
    MEMORY_ENTRY,
    MEMORY_LISTING,
    MEMORY_LISTING_TEXT_COLUMNS,
    clamp,
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
from shared_context_server.storage.postgres.audit import add_audit
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement, within_bytes
from shared_context_server.storage.postgres.engine.work import Subject, reads, writes
from shared_context_server.storage.postgres.idempotency import find_record, keep_answer
from shared_context_server.storage.postgres.leases import check_fence
from shared_context_server.storage.postgres.sessions import use_optional_session
from shared_context_server.storage.rules.idempotency import (
    check_write,
    find_memory_call,
    memory_answer,
    to_duplicate_memory,
)
from shared_context_server.storage.rules.memory import end_of_prefix, make_entry
from shared_context_server.storage.rules.pages import page_budget, take_page

_AT_ADDRESS = "session_id = :session_id AND owner = :owner AND key = :key"

_FIND = Statement(f"""
    SELECT {MEMORY_ENTRY} FROM memory
    WHERE {_AT_ADDRESS} AND (expires_at IS NULL OR expires_at > :now)""")
# If two insert the same new entry, they conflict, and the later one is run again.
_LOCK = Statement(f"SELECT 1 FROM memory WHERE {_AT_ADDRESS} FOR UPDATE")
_ADD = Statement("""
    INSERT INTO memory (
        session_id, owner, key, version, created_at, updated_at, updated_by, expires_at,
        size_bytes, metadata, value)
    VALUES (
        :session_id, :owner, :key, :version, :created_at, :updated_at, :updated_by, :expires_at,
        :size_bytes, :metadata, :value)""")
_REPLACE = Statement(f"""
    UPDATE memory SET
        version = :version, created_at = :created_at, updated_at = :updated_at,
        updated_by = :updated_by, expires_at = :expires_at,
        size_bytes = :size_bytes, metadata = :metadata, value = :value
    WHERE {_AT_ADDRESS}""")
_REMOVE = Statement(f"DELETE FROM memory WHERE {_AT_ADDRESS}")
_LISTED = f"""
    SELECT {MEMORY_LISTING} FROM memory
    WHERE session_id = :session_id AND owner = :owner
      AND key >= :prefix AND key < :end_key
      AND (expires_at IS NULL OR expires_at > :now)"""
_LIST, _LIST_ON = (
    Statement(
        within_bytes(
            MEMORY_LISTING,
            f"{_LISTED} {bound} ORDER BY key LIMIT :limit",
            ("key", "metadata"),
            "key",
        )
    )
    for bound in ("", "AND key > :after_key")
)
_LIST_ALL = Statement(
    within_bytes(
        f"session_id, owner, key, {MEMORY_ENTRY}",
        f"""
    SELECT session_id, owner, key, {MEMORY_ENTRY} FROM memory
    WHERE (session_id, owner, key) > (:session_id, :owner, :key)
      AND (expires_at IS NULL OR expires_at > :now)
    ORDER BY session_id, owner, key LIMIT :limit""",
        ("key", "metadata", "value"),
        "session_id, owner, key",
    )
)

_BEHIND_ALL_KEYS = "\U0010ffff" * 256  # more characters than a key has


def _where(address: MemoryAddress) -> dict[str, str]:
    return {
        "session_id": address.session_id or "",
        "owner": address.owner or "",
        "key": address.key,
    }


async def _find(
    connection: Connection, address: MemoryAddress, now: datetime
) -> MemoryEntry | None:
    row = await connection.fetchrow(*_FIND(**_where(address), now=encode_time(now)))
    return None if row is None else to_memory_entry(address, row)


class Memory(Subject):
    """Memory entries. See contract/memory.py."""

    @writes
    async def write(
        self,
        connection: Connection,
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
        session = await use_optional_session(connection, address.session_id, None, "KEY SHARE")
        record = None if call is None else await find_record(connection, call)
        first = check_write(call, record, session, guard)
        if first is not None:
            return WrittenMemory(to_duplicate_memory(address, first), duplicate=True)
        if fence is not None:
            await check_fence(connection, address.session_id, fence, caller, now)
        is_known = await connection.fetchrow(*_LOCK(**_where(address))) is not None
        current = await _find(connection, address, now) if is_known else None
        entry = make_entry(address, caller, current, update(current), now)
        await _put(connection, _REPLACE if is_known else _ADD, entry)
        if call is not None:
            await keep_answer(connection, call, memory_answer(entry), now)
        if audit is not None:
            await add_audit(connection, audit)
        return WrittenMemory(entry)

    @reads
    async def get(
        self,
        connection: Connection,
        address: MemoryAddress,
        *,
        now: datetime,
        guard: SessionGuard | None,
    ) -> MemoryEntry:
        await use_optional_session(connection, address.session_id, guard, None)
        entry = await _find(connection, address, now)
        if entry is None:
            raise MemoryNotFound(address.key)
        return entry

    @reads
    async def list_entries(
        self,
        connection: Connection,
        *,
        session_id: str | None,
        owner: str | None,
        prefix: str,
        limit: int,
        after_key: str | None,
        now: datetime,
        guard: SessionGuard | None,
    ) -> Page[MemoryListing]:
        await use_optional_session(connection, session_id, guard, None)
        parameters = {
            "session_id": session_id or "",
            "owner": owner or "",
            "prefix": prefix,
            "after_key": after_key,
            "end_key": end_of_prefix(prefix) or _BEHIND_ALL_KEYS,
            "now": encode_time(now),
            "limit": clamp(limit + 1),
            "max_bytes": page_budget(limit),
        }
        statement = _LIST if after_key is None else _LIST_ON
        found = await connection.fetch(*statement(**parameters))
        rows, has_more = take_page(found, limit, MEMORY_LISTING_TEXT_COLUMNS)
        return Page([to_memory_listing(session_id, owner, row) for row in rows], has_more)

    @reads
    async def list_all(
        self,
        connection: Connection,
        *,
        after: MemoryAddress | None,
        limit: int,
        now: datetime,
    ) -> list[MemoryEntry]:
        start = {"session_id": "", "owner": "", "key": ""} if after is None else _where(after)
        parameters = {
            **start,
            "now": encode_time(now),
            "limit": clamp(limit + 1),
            "max_bytes": page_budget(limit),
        }
        found = await connection.fetch(*_LIST_ALL(**parameters))
        rows, _ = take_page(found, limit, KEYED_MEMORY_TEXT_COLUMNS)
        return [to_keyed_memory_entry(row) for row in rows]

    @writes
    async def delete(
        self,
        connection: Connection,
        address: MemoryAddress,
        check: Callable[[MemoryEntry], None],
        *,
        now: datetime,
        guard: SessionGuard | None,
        audit: AuditEntry,
    ) -> None:
        await use_optional_session(connection, address.session_id, guard, "KEY SHARE")
        # Check only the locked row: an entry inserted right after could change once more.
        is_known = await connection.fetchrow(*_LOCK(**_where(address))) is not None
        entry = await _find(connection, address, now) if is_known else None
        if entry is None:
            raise MemoryNotFound(address.key)
        check(entry)
        await connection.execute(*_REMOVE(**_where(address)))
        await add_audit(connection, audit)


async def _put(connection: Connection, statement: Statement, entry: MemoryEntry) -> None:
    value = encode_json(entry.value)
    await connection.execute(
        *statement(
            **_where(entry.address),
            version=entry.version,
            created_at=encode_time(entry.created_at),
            updated_at=encode_time(entry.updated_at),
            updated_by=entry.updated_by,
            expires_at=encode_optional_time(entry.expires_at),
            size_bytes=len(value.encode()),
            metadata=encode_json(entry.metadata),
            value=value,
        )
    )
