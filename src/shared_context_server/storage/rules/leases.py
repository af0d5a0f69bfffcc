"""Decisions about leases: who may take one, and whether a fenced write may go on."""

from __future__ import annotations

from collections.abc import Sequence

from shared_context_server import policy
from shared_context_server.errors import Conflict, LeaseLost
from shared_context_server.models import Caller, Lease
from shared_context_server.path_patterns import find_overlap
from shared_context_server.storage.contract import Fence, LeaseAttempt

# Held in one session, or server-wide. So the check takes some milliseconds, whatever the patterns.
MAX_PATH_LEASES = 64
MAX_PATH_CHARS = 8000


def refuse_attempt(held: Lease | None, caller: Caller) -> LeaseAttempt | None:
    """Return the refusal if another agent holds the lease, or another instance of the same agent; None
    if the caller may take or renew it."""
    if held is None or _is_holder(held, caller):
        return None
    return LeaseAttempt(held, is_acquired=False)


def refuse_paths(
    paths: tuple[str, ...], others: Sequence[Lease], caller: Caller
) -> LeaseAttempt | None:
    """Return the refusal if the paths overlap with those that somebody else holds; None if the caller
    may take them. `others`: the path leases held in the same place, without the one to be taken.
    Raises Conflict if they are too many with this one."""
    held = [one for one in others if not _is_holder(one, caller)]
    overlapping = find_overlap(paths, [one.paths for one in held])
    if overlapping is not None:
        return LeaseAttempt(held[overlapping], is_acquired=False)
    chars = sum(len(path) for one in others for path in one.paths) + sum(map(len, paths))
    if len(others) >= MAX_PATH_LEASES or chars > MAX_PATH_CHARS:
        raise Conflict(
            f"Only {MAX_PATH_LEASES} leases with paths, of together {MAX_PATH_CHARS} characters, can "
            "be held at a time in a session.",
            field="paths",
            suggestion="Use fewer or shorter patterns, or wait until others have released theirs.",
        )
    return None


def _is_holder(lease: Lease, caller: Caller) -> bool:
    return (lease.holder, lease.instance) == (caller.agent_id, caller.instance)


def require_fence(held: Lease | None, fence: Fence, caller: Caller) -> None:
    """Raise LeaseLost unless the caller holds the fence's lease with exactly its token. `held`:
    that lease, None if nobody holds it."""
    if held is None:
        raise LeaseLost(fence.lease, is_told=policy.may_read(caller))
    if (held.holder, held.fencing_token) != (caller.agent_id, fence.fencing_token):
        raise LeaseLost(
            fence.lease,
            holder=held.holder,
            instance=held.instance,
            current_token=held.fencing_token,
            is_told=policy.may_read(caller),
        )
