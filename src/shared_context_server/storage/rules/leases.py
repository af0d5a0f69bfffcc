"""Decisions about leases: who may take one, and whether a fenced write may go on."""

from __future__ import annotations

from shared_context_server import policy
from shared_context_server.errors import LeaseLost
from shared_context_server.models import Caller, Lease
from shared_context_server.storage.contract import Fence, LeaseAttempt


def refuse_attempt(held: Lease | None, caller: Caller) -> LeaseAttempt | None:
    """Return the refusal if another agent holds the lease, or another instance of the same agent; None
    if the caller may take or renew it."""
    if held is None or (held.holder, held.instance) == (caller.agent_id, caller.instance):
        return None
    return LeaseAttempt(held, is_acquired=False)


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
