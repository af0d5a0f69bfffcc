"""Memory: versioned values with an expiry, private or shared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from pydantic import JsonValue
from pydantic_core import to_json

from shared_context_server import policy
from shared_context_server.errors import (
    Conflict,
    ContentTooLarge,
    InvalidArgument,
    QuotaExceeded,
    SharedContextError,
)
from shared_context_server.models import (
    AuditEntry,
    Caller,
    Event,
    EventKind,
    JsonObject,
    MemoryAddress,
    MemoryEntry,
    MemoryMode,
    MemoryScope,
    Permission,
    Session,
)
from shared_context_server.services.context import SearchServices, Services
from shared_context_server.services.fingerprint import fingerprint
from shared_context_server.services.json_rules import (
    JSON_DEPTH,
    TOO_DEEP,
    find_fault,
    is_large_integer,
)
from shared_context_server.services.paging import decode_cursor, encode_cursor
from shared_context_server.services.quotas import AGENT_LIMITS, BYTE_LIMITS, Growth
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import (
    Fence,
    MemoryListing,
    MemoryUpdate,
    MemoryWrite,
    SessionGuard,
    WrittenMemory,
)
from shared_context_server.storage.rules.pages import count_bytes

MAX_VALUE_BYTES = 256 * 1024

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """The arguments of set_memory. `is_value_given` tells null from a missing value; `expires_in`
    is in seconds."""

    mode: MemoryMode
    value: JsonValue
    is_value_given: bool
    metadata: JsonObject | None
    expires_in: int | None
    expected_version: int | None


@dataclass(frozen=True, slots=True)
class MemoryPage:
    entries: list[MemoryListing]
    next_cursor: str | None


async def set_memory(
    services: Services,
    caller: Caller,
    address: MemoryAddress,
    change: MemoryChange,
    idempotency_key: str | None,
    fence: Fence | None = None,
    *,
    by_hand: bool = False,
) -> WrittenMemory:
    """Write the entry as the mode says, if it has the expected version.

    `fence` is a lease of the same session, or a server-wide one if there is no session. Raises
    LeaseLost if the caller does not hold it. `by_hand`: a person writes on the dashboard, which the
    audit log keeps; agents write too often for it.
    """
    policy.require_permission(caller, Permission.WRITE)
    if not change.is_value_given and change.mode is not MemoryMode.INCREMENT:
        raise InvalidArgument("value is missing.", field="value")
    if change.mode is MemoryMode.MERGE and not isinstance(change.value, dict):
        raise InvalidArgument(
            "value must be a JSON object in the mode merge.",
            field="value",
            suggestion="Send the object itself, not as text; mode replace stores any other value.",
        )
    now = utc_now()
    growth = partial(_measure_growth, address, change)
    async with services.quotas.admit(caller, address.session_id, growth) as errors:
        update = _refuse_growth(caller, errors, make_update(change, now))
        written = await services.store.memory.write(
            address,
            caller,
            _hide_value_from_non_readers(caller, update),
            now=now,
            guard=_guard(policy.require_session_write, caller, address.session_id),
            idempotency_key=idempotency_key,
            fingerprint="" if idempotency_key is None else _fingerprint(address, change),
            fence=fence,
            audit=_audit(caller, "memory_edited", address) if by_hand else None,
        )
    if not written.duplicate:
        services.bus.publish(_changed(address))
    return written


def _measure_growth(address: MemoryAddress, change: MemoryChange) -> Growth:
    return Growth(
        memory_entries=1, bytes=count_bytes(address.key) + _measure(change.value, change.metadata)
    )


def _measure(value: JsonValue, metadata: JsonObject | None) -> int:
    return len(to_json(value)) + len(to_json(metadata or {}))


def _refuse_growth(
    caller: Caller, errors: Sequence[SharedContextError], update: MemoryUpdate
) -> MemoryUpdate:
    """Wrap `update` so that it raises those of the errors that this write is worth: the entry is new to
    the account that is full, or it grows by more bytes than are left."""
    if not errors:
        return update

    def checked(current: MemoryEntry | None) -> MemoryWrite:
        new = update(current)
        for error in errors:
            if not isinstance(error, QuotaExceeded):
                raise error
            is_of_agent = error.limit in AGENT_LIMITS
            if current is None or (is_of_agent and current.updated_by != caller.agent_id):
                raise error
            growth = _measure(new.value, new.metadata) - _measure(current.value, current.metadata)
            if error.limit in BYTE_LIMITS and growth > error.left:
                raise error
        return new

    return checked


async def get_memory(
    services: SearchServices, caller: Caller, address: MemoryAddress
) -> MemoryEntry:
    """Return the entry. Raises MemoryNotFound, and Conflict if its value cannot be read."""
    policy.require_permission(caller, Permission.READ)
    entry = await services.store.memory.get(
        address,
        now=utc_now(),
        guard=_guard(policy.require_session_read, caller, address.session_id),
    )
    _require_readable(entry)
    return entry


async def list_memory(
    services: SearchServices,
    caller: Caller,
    *,
    session_id: str | None,
    scope: MemoryScope,
    prefix: str,
    limit: int,
    cursor: str | None,
) -> MemoryPage:
    """Return one page of the entries of a session or of the server, without values, by key."""
    policy.require_permission(caller, Permission.READ)
    after_key = None if cursor is None else str(decode_cursor(cursor, str)[0])
    page = await services.store.memory.list_entries(
        session_id=session_id,
        owner=policy.memory_address(caller, "", session_id, scope).owner,
        prefix=prefix,
        limit=limit,
        after_key=after_key,
        now=utc_now(),
        guard=_guard(policy.require_session_read, caller, session_id),
    )
    next_cursor = encode_cursor(page.items[-1].address.key) if page.has_more else None
    return MemoryPage(page.items, next_cursor)


async def delete_memory(
    services: Services, caller: Caller, address: MemoryAddress, expected_version: int | None
) -> None:
    """Remove the entry. Raises MemoryNotFound, and Conflict if it has another version."""
    policy.require_permission(caller, Permission.WRITE)
    await services.store.memory.delete(
        address,
        _hide_value_from_non_readers(
            caller, lambda entry: _require_version(entry, expected_version)
        ),
        now=utc_now(),
        guard=_guard(policy.require_session_write, caller, address.session_id),
        audit=_audit(caller, "memory_deleted", address),
    )
    services.bus.publish(_changed(address))


def _audit(caller: Caller, event_type: str, address: MemoryAddress) -> AuditEntry:
    details: JsonObject = {"key": address.key, "scope": address.scope.value}
    return policy.hide_private_names(AuditEntry.by(caller, event_type, address.session_id, details))


def _hide_value_from_non_readers(
    caller: Caller, check: Callable[[MemoryEntry | None], R]
) -> Callable[[MemoryEntry | None], R]:
    """Wrap `check` so that its errors show the stored value only to callers who may read it."""
    if policy.may_read(caller):
        return check

    def checked(current: MemoryEntry | None) -> R:
        try:
            return check(current)
        except Conflict as exc:
            exc.details.pop("current_value", None)
            exc.hint = "Who may read this memory can say what is stored; then call again."
            raise
        except ContentTooLarge as exc:
            raise ContentTooLarge(
                "The new value would be too large.", field="value", limit_bytes=MAX_VALUE_BYTES
            ) from exc

    return checked


def _changed(address: MemoryAddress) -> Event:
    return Event(
        EventKind.MEMORY_CHANGED, address.session_id, name=address.key, owner=address.owner
    )


def make_update(change: MemoryChange, now: datetime) -> MemoryUpdate:
    """Return a pure function that computes the new entry from the stored one.

    A new entry and the mode replace take metadata and expiry from the change alone. The other modes
    keep what the change does not name.
    """

    def update(current: MemoryEntry | None) -> MemoryWrite:
        _require_version(current, change.expected_version)
        if change.mode is MemoryMode.CREATE and current is not None:
            raise _conflict("The key already exists.", current, field="mode")
        value = _COMBINE[change.mode](current, change)
        _require_storable(value)
        kept = None if change.mode is MemoryMode.REPLACE else current
        metadata = change.metadata
        if metadata is None:
            metadata = {} if kept is None else kept.metadata
        expires_at = None if kept is None else kept.expires_at
        if change.expires_in is not None:
            expires_at = now + timedelta(seconds=change.expires_in)
        return MemoryWrite(value=value, metadata=metadata, expires_at=expires_at)

    return update


def _require_storable(value: JsonValue) -> None:
    """Check the new value against the limits of input values. Several inputs may have been
    combined."""
    text = to_json(value)
    if len(text) > MAX_VALUE_BYTES:
        raise ContentTooLarge(
            f"The new value would be {len(text)} bytes of JSON; {MAX_VALUE_BYTES} is the limit.",
            field="value",
            limit_bytes=MAX_VALUE_BYTES,
        )
    fault = find_fault(text)
    if fault is not None:
        error = InvalidArgument(f"The new value {fault}.", field="value")
        error.limit = JSON_DEPTH if fault is TOO_DEEP else ""
        raise error


def merge_patch(target: JsonValue, patch: JsonValue) -> JsonValue:
    """JSON merge patch, RFC 7396 section 2: null removes a member, objects merge, the rest replaces."""
    if not isinstance(patch, dict):
        return patch
    merged: dict[str, JsonValue] = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _replace(current: MemoryEntry | None, change: MemoryChange) -> JsonValue:
    return change.value


def _merge(current: MemoryEntry | None, change: MemoryChange) -> JsonValue:
    _require_readable(current)
    return merge_patch({} if current is None else current.value, change.value)


def _append(current: MemoryEntry | None, change: MemoryChange) -> JsonValue:
    if current is None:
        return [change.value]
    _require_readable(current)
    if isinstance(current.value, list):
        return [*current.value, change.value]
    if isinstance(current.value, str) and isinstance(change.value, str):
        return current.value + change.value
    raise _conflict(
        "The mode append needs a stored list, or a stored text and a text.", current, field="mode"
    )


def _increment(current: MemoryEntry | None, change: MemoryChange) -> JsonValue:
    step = change.value if change.is_value_given else 1
    if not _is_number(step):
        raise InvalidArgument("value must be a number in the mode increment.", field="value")
    _require_readable(current)
    base = 0 if current is None else current.value
    if not _is_number(base):
        raise _conflict("The mode increment needs a stored number.", current, field="mode")
    try:
        total: int | float = base + step  # type: ignore[operator,assignment]  # both are numbers
    except OverflowError:  # a fraction, and an integer beyond every float
        total = math.inf
    if isinstance(total, float) and not math.isfinite(total):
        raise _conflict("The sum is not a finite number.", current, field="value")
    if is_large_integer(total):
        raise _conflict("The sum is an integer beyond 64 bits.", current, field="value")
    return total


_COMBINE: dict[MemoryMode, Callable[[MemoryEntry | None, MemoryChange], JsonValue]] = {
    MemoryMode.REPLACE: _replace,
    MemoryMode.CREATE: _replace,
    MemoryMode.MERGE: _merge,
    MemoryMode.APPEND: _append,
    MemoryMode.INCREMENT: _increment,
}


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_readable(entry: MemoryEntry | None) -> None:
    """Raise Conflict if the stored value cannot be returned to any client."""
    if entry is not None and not entry.is_readable:
        raise _conflict(
            "The stored value has an integer of more than 4,300 digits, which clients cannot read.",
            entry,
            field="key",
            suggestion="Replace the value (mode replace), or delete the key; export still has it.",
        )


def _require_version(current: MemoryEntry | None, expected: int | None) -> None:
    version = 0 if current is None else current.version
    if expected is not None and expected != version:
        raise _conflict(
            f"The current version is {version}, not {expected}.", current, field="expected_version"
        )


def _conflict(
    message: str, current: MemoryEntry | None, *, field: str, suggestion: str | None = None
) -> Conflict:
    return Conflict(
        message,
        field=field,
        suggestion=suggestion,
        current_version=0 if current is None else current.version,
        current_value=None if current is None else current.value,
    )


def _guard(
    rule: Callable[[Caller, Session], None], caller: Caller, session_id: str | None
) -> SessionGuard | None:
    return None if session_id is None else partial(rule, caller)


def _fingerprint(address: MemoryAddress, change: MemoryChange) -> str:
    return fingerprint(
        address.key,
        address.scope.value,
        change.mode.value,
        change.value,
        change.is_value_given,
        change.metadata,
        change.expires_in,
        change.expected_version,
    )
