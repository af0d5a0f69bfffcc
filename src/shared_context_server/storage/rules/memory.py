"""Compute the next version of a memory entry, and the range of keys that have a prefix."""

from __future__ import annotations

from datetime import datetime

from shared_context_server.models import Caller, MemoryAddress, MemoryEntry
from shared_context_server.storage.contract import MemoryWrite

_SURROGATES = range(0xD800, 0xE000)
_LAST_CODE_POINT = 0x10FFFF


def make_entry(
    address: MemoryAddress,
    caller: Caller,
    current: MemoryEntry | None,
    write: MemoryWrite,
    now: datetime,
) -> MemoryEntry:
    """Return the entry that follows `current` (None: missing or expired)."""
    return MemoryEntry(
        address=address,
        value=write.value,
        version=current.version + 1 if current else 1,
        metadata=write.metadata,
        created_at=current.created_at if current else now,
        updated_at=now,
        updated_by=caller.agent_id,
        expires_at=write.expires_at,
    )


def end_of_prefix(prefix: str) -> str | None:
    """Return the smallest text after all that start with `prefix`, in code point order; None if
    there is none."""
    stem = prefix.rstrip(chr(_LAST_CODE_POINT))
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    if following in _SURROGATES:  # no text contains them
        following = _SURROGATES.stop
    return stem[:-1] + chr(following)
