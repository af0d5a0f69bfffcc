"""Decide whether a row may replace its earlier state, when a store is copied again later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared_context_server.storage.codec import Row
from shared_context_server.storage.transfer.records import RecordKind

Fields = dict[str, Any]


def follows(kind: RecordKind, old: Row, new: Row) -> bool:
    """Whether `old` may be an earlier state of the row `new` in the store it comes from.

    Columns that are not in kind.mutable never change, so append-only rows have no later state.
    Nothing goes backwards: no cursor, fencing token, version or revocation.
    """
    rule = _SUCCESSIONS.get(kind.name)
    before = dict(zip(kind.columns, old, strict=True))
    after = dict(zip(kind.columns, new, strict=True))
    if rule is None or not _only_changes(before, after, *kind.mutable):
        return False
    return rule(before, after)


def _only_changes(before: Fields, after: Fields, *changing: str) -> bool:
    return all(before[name] == after[name] for name in before if name not in changing)


def _session_goes_on(before: Fields, after: Fields) -> bool:
    if any(after[name] < before[name] for name in ("first_seq", "expired_up_to")):
        return False
    expiry = ("first_seq", "expired_up_to", "removed_id", "removed_at")
    return before["status"] == "active" or _only_changes(before, after, *expiry)


def _was_not_revoked(before: Fields, after: Fields) -> bool:
    return before["revoked_at"] is None


def _grows(name: str) -> Callable[[Fields, Fields], bool]:
    return lambda before, after: bool(after[name] > before[name])


def _is_not_seen_earlier(before: Fields, after: Fields) -> bool:
    return bool(after["last_seen"] >= before["last_seen"])


def _was_not_chained(before: Fields, after: Fields) -> bool:
    return bool(before["hash"] == "")


def _chain_goes_on(before: Fields, after: Fields) -> bool:
    ends = ("anchor_id", "head_id")
    return all(after[name] >= before[name] for name in ends) and any(
        after[name] > before[name] for name in ends
    )


def _lease_goes_on(before: Fields, after: Fields) -> bool:
    if before["fencing_token"] != after["fencing_token"]:
        return _grows("fencing_token")(before, after)
    if before["holder"] is None:  # a new holding has a new token
        return False
    is_later = after["holder"] is None or after["expires_at"] > before["expires_at"]
    return is_later and _only_changes(before, after, "holder", "expires_at")


_SUCCESSIONS: dict[str, Callable[[Fields, Fields], bool]] = {
    "session": _session_goes_on,
    "cursor": _grows("seq"),
    "memory": _grows("updated_at"),
    "idempotency": _grows("created_at"),  # the key was purged and used again
    "lease": _lease_goes_on,
    "task": _grows("version"),
    "agent": _is_not_seen_earlier,
    "api_key": _was_not_revoked,
    "credential": _was_not_revoked,
    "audit": _was_not_chained,
    "audit_chain": _chain_goes_on,
    "counter": _grows("last_id"),
}
