"""The audit log on SQLite."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3
from itertools import takewhile

from shared_context_server.models import AuditEntry
from shared_context_server.storage.audit_rows import (
    AUDIT_CHAIN,
    AUDIT_ENTRY,
    from_audit_entry,
    to_audit_entry,
)
from shared_context_server.storage.codec import MAX_INTEGER, clamp, encode_time
from shared_context_server.storage.contract import AuditChain, AuditQuery
from shared_context_server.storage.rules.audit_chain import hash_entry
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes

_ADD = """
    INSERT INTO audit_log (id, created_at, event_type, agent_id, session_id, details, hash)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
_LAST_ID = "SELECT seq FROM sqlite_sequence WHERE name = 'audit_log'"
_FIND_HEAD = f"SELECT head_id, head_hash, ({_LAST_ID}) FROM audit_chain WHERE id = 1"
_START_CHAIN = f"""
    INSERT INTO audit_chain (id, start_id, anchor_id, anchor_hash, head_id, head_hash)
    SELECT 1, last_id, last_id, '', last_id, ''
    FROM (SELECT coalesce(({_LAST_ID}), 0) AS last_id)
    RETURNING head_id, head_hash, head_id"""
_SET_HEAD = "UPDATE audit_chain SET head_id = ?, head_hash = ? WHERE id = 1"
_SET_ANCHOR = "UPDATE audit_chain SET anchor_id = ?, anchor_hash = ? WHERE id = 1"
_FIND_CHAIN = f"SELECT {AUDIT_CHAIN} FROM audit_chain WHERE id = 1"
_LIST_BEHIND = f"SELECT {AUDIT_ENTRY} FROM audit_log WHERE id > ? ORDER BY id"
_SET_HASH = "UPDATE audit_log SET hash = ? WHERE id = ?"
_LIST_OLDEST = "SELECT id, created_at, hash FROM audit_log ORDER BY id LIMIT ?"
_REMOVE = "DELETE FROM audit_log WHERE id <= ?"
_LIST = f"""
    SELECT {AUDIT_ENTRY} FROM audit_log
    WHERE id < :before_id
      AND created_at >= :start_time
      AND (:session_id IS NULL OR session_id = :session_id)
      AND (:agent_id IS NULL OR agent_id = :agent_id)
      AND (:event_type IS NULL OR event_type = :event_type)
    ORDER BY id DESC LIMIT :limit"""


class Audit(Subject):
    """The audit log. See contract/audit.py."""

    @reads
    def list_newest(self, connection: sqlite3.Connection, query: AuditQuery) -> list[AuditEntry]:
        return _list_newest(connection, query)

    @reads
    def list_with_chain(
        self, connection: sqlite3.Connection, query: AuditQuery
    ) -> tuple[list[AuditEntry], AuditChain | None]:
        row = connection.execute(_FIND_CHAIN).fetchone()
        return _list_newest(connection, query), None if row is None else AuditChain(*row)

    @writes
    def add(self, connection: sqlite3.Connection, entry: AuditEntry) -> None:
        add_audit(connection, entry)


def _list_newest(connection: sqlite3.Connection, query: AuditQuery) -> list[AuditEntry]:
    rows = connection.execute(
        _LIST,
        {
            "before_id": MAX_INTEGER if query.before_id is None else clamp(query.before_id),
            "start_time": -MAX_INTEGER
            if query.start_time is None
            else encode_time(query.start_time),
            "session_id": query.session_id,
            "agent_id": query.agent_id,
            "event_type": query.event_type,
            "limit": query.limit,
        },
    )
    return [to_audit_entry(row) for row in rows]


def add_audit(connection: sqlite3.Connection, entry: AuditEntry) -> None:
    """Add the entry and chain it to the one before. SQLite's write lock fixes the order."""
    row = connection.execute(_FIND_HEAD).fetchone()
    # fetchall, because an INSERT that is not read to its end is not finished.
    head_id, head_hash, last_id = row or connection.execute(_START_CHAIN).fetchall()[0]
    if last_id != head_id:
        last_id, head_hash = _chain_rest(connection, head_id, head_hash)
    id_ = last_id + 1
    content = from_audit_entry(entry)[1:-1]
    hash_ = hash_entry(head_hash, id_, content)
    connection.execute(_ADD, (id_, *content, hash_))
    connection.execute(_SET_HEAD, (id_, hash_))


def purge_audit(connection: sqlite3.Connection, before: int, limit: int) -> int:
    """Remove the oldest entries, up to `limit`, and anchor the chain at the last of them. Ends at the
    first that is not older than `before`, because the chain must have no gap. Return the number."""
    head = connection.execute(_FIND_HEAD).fetchone()
    if head is not None and head[0] != head[2]:
        _chain_rest(connection, head[0], head[1])
    oldest = connection.execute(_LIST_OLDEST, (limit,)).fetchall()
    old = list(takewhile(lambda row: row[1] < before, oldest))
    if old:
        last_id, _, last_hash = old[-1]
        connection.execute(_REMOVE, (last_id,))
        if last_hash:
            connection.execute(_SET_ANCHOR, (last_id, last_hash))
    return len(old)


def _chain_rest(connection: sqlite3.Connection, head_id: int, head_hash: str) -> tuple[int, str]:
    """Chain the entries behind the head, which a process of an older version has added. Return the last
    id and the hash of the head."""
    last_id = head_id
    for last_id, *content, hash_ in connection.execute(_LIST_BEHIND, (head_id,)).fetchall():
        if not hash_:  # one that has a hash was added by something else; verifying finds it
            head_id, head_hash = last_id, hash_entry(head_hash, last_id, tuple(content))
            connection.execute(_SET_HASH, (head_hash, head_id))
            connection.execute(_SET_HEAD, (head_id, head_hash))
    return last_id, head_hash
