"""Decide whether a write repeats an earlier one with the same idempotency key."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from shared_context_server.errors import Conflict, QuotaExceeded, SessionClosed, StorageFull
from shared_context_server.models import (
    Caller,
    JsonObject,
    MemoryAddress,
    MemoryEntry,
    Session,
)
from shared_context_server.storage.codec import (
    decode_json,
    decode_optional_time,
    decode_time,
    encode_optional_time,
    encode_time,
)
from shared_context_server.storage.contract import AddedMessage, NewMessage, SessionGuard


@dataclass(frozen=True, slots=True)
class IdempotentCall:
    """A call with an idempotency key. `kind` names the method: a key cannot be reused for another."""

    session_id: str | None
    agent_id: str
    key: str
    kind: str
    fingerprint: str

    @property
    def stored_session_id(self) -> str:
        """The session id as it is stored: '' for server-wide."""
        return self.session_id or ""


Record = tuple[str, str, str]
"""Kind, fingerprint and answer of the call that has used a key first, as they are stored."""


def check_write(
    call: IdempotentCall | None,
    record: Record | None,
    session: Session | None,
    guard: SessionGuard | None,
) -> JsonObject | None:
    """Decide whether a write may proceed. Return the first call's answer if this is a repetition,
    which writes nothing; None once the guard has allowed the write.

    The record is checked before the guard. For a repetition the guard only decides whether the
    caller may see the answer: that the session was closed since, or that it or the disk is full, does not
    matter. Raises
    Conflict if the first call was a different one, and what the guard raises.
    """
    if call is None or record is None:
        if session is not None and guard is not None:
            guard(session)
        return None
    if session is not None and guard is not None:
        with contextlib.suppress(SessionClosed, QuotaExceeded, StorageFull):
            guard(session)
    kind, fingerprint, answer = record
    if (kind, fingerprint) != (call.kind, call.fingerprint):
        raise Conflict(
            "idempotency_key was already used for a different call.",
            field="idempotency_key",
            suggestion="Use a new idempotency_key for a new call; repeat the old one unchanged.",
        )
    found: JsonObject = decode_json(answer)
    return found


def find_message_call(new: NewMessage) -> IdempotentCall | None:
    """Return the idempotent call of `new`; None if it has no key."""
    if new.idempotency_key is None:
        return None
    return IdempotentCall(
        session_id=new.session_id,
        agent_id=new.sender.agent_id,
        key=new.idempotency_key,
        kind="add_message",
        fingerprint=new.fingerprint,
    )


def message_answer(added: AddedMessage) -> JsonObject:
    return {"id": added.id, "seq": added.seq, "timestamp": encode_time(added.timestamp)}


def to_duplicate_message(answer: dict[str, Any]) -> AddedMessage:
    return AddedMessage(
        id=answer["id"],
        seq=answer["seq"],
        timestamp=decode_time(answer["timestamp"]),
        duplicate=True,
    )


def find_memory_call(
    address: MemoryAddress, caller: Caller, key: str | None, fingerprint: str
) -> IdempotentCall | None:
    """Return the idempotent call that writes to `address`; None if it has no key."""
    if key is None:
        return None
    return IdempotentCall(
        session_id=address.session_id,
        agent_id=caller.agent_id,
        key=key,
        kind="write_memory",
        fingerprint=fingerprint,
    )


def memory_answer(entry: MemoryEntry) -> JsonObject:
    """Return the answer to be stored: the entry without its value, which may be large."""
    return {
        "version": entry.version,
        "metadata": entry.metadata,
        "created_at": encode_time(entry.created_at),
        "updated_at": encode_time(entry.updated_at),
        "updated_by": entry.updated_by,
        "expires_at": encode_optional_time(entry.expires_at),
    }


def to_duplicate_memory(address: MemoryAddress, answer: dict[str, Any]) -> MemoryEntry:
    return MemoryEntry(
        address=address,
        value=None,
        version=answer["version"],
        metadata=answer["metadata"],
        created_at=decode_time(answer["created_at"]),
        updated_at=decode_time(answer["updated_at"]),
        updated_by=answer["updated_by"],
        expires_at=decode_optional_time(answer["expires_at"]),
    )
