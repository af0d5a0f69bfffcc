"""Convert the rows of the audit log to entries and back."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from shared_context_server.models import AuditEntry, JsonObject
from shared_context_server.storage.codec import (
    Row,
    decode_json,
    decode_time,
    encode_json,
    encode_time,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # where an entry has no readable time
AUDIT_CHAIN = "start_id, anchor_id, anchor_hash, head_id, head_hash"
AUDIT_ENTRY = "id, created_at, event_type, agent_id, session_id, details, hash"
UNREADABLE = "unreadable"
"""What stands in an audit entry for what somebody has written into the table past the server."""
_MAX_UNREADABLE_CHARS = 1000


def to_audit_entry(row: Row) -> AuditEntry:
    """Return the entry, whatever the row holds: one that was tampered with must not keep the log from
    being read. Where the row is not as it was written, the entry says so, and its hash does not match."""
    id_, created_at, event_type, agent_id, session_id, stored, hash_ = row
    timestamp = EPOCH
    details: JsonObject = {UNREADABLE: str(stored)[:_MAX_UNREADABLE_CHARS]}
    with suppress(ValueError, TypeError, OverflowError):
        timestamp = decode_time(created_at)
    with suppress(ValueError, TypeError, RecursionError):
        decoded = decode_json(stored)
        # Rows without a hash may be of a version that wrote JSON otherwise.
        if isinstance(decoded, dict) and (not hash_ or encode_json(decoded) == stored):
            details = decoded
    return AuditEntry(
        id=id_,
        timestamp=timestamp,
        event_type=event_type if isinstance(event_type, str) else UNREADABLE,
        agent_id=agent_id if isinstance(agent_id, str) else UNREADABLE,
        session_id=session_id if isinstance(session_id, str | None) else UNREADABLE,
        details=details,
        hash=hash_ if isinstance(hash_, str) else UNREADABLE,
    )


def from_audit_entry(entry: AuditEntry) -> Row:
    """Return the row that to_audit_entry reads as this entry."""
    return (
        entry.id,
        encode_time(entry.timestamp),
        entry.event_type,
        entry.agent_id,
        entry.session_id,
        encode_json(entry.details),
        entry.hash,
    )
