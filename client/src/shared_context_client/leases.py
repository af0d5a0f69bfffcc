"""Hold a lease while a block of code runs, and renew it in the background."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from shared_context_client._generated.errors import LeaseLost
from shared_context_client._generated.results import LeaseAcquired
from shared_context_client._generated.tools import AsyncTools
from shared_context_client.errors import LeaseHeld, ServerUnavailable, SharedContextError

RENEWALS_A_TERM = 3  # two renewals may fail before the lease ends


class HeldLease:
    """A lease that is held. Pass it to writes as `lease=`: the server refuses them with LEASE_LOST
    once the lease is lost."""

    def __init__(self, acquired: LeaseAcquired, ttl_s: float, asked_at: float) -> None:
        assert acquired.fencing_token is not None
        self.name = acquired.name
        self.session_id = acquired.session_id
        self.fencing_token = acquired.fencing_token
        self._ttl_s = ttl_s
        self._ends_at = asked_at + ttl_s
        self._is_lost = False

    @property
    def is_held(self) -> bool:
        """Whether the lease is still held by our own clock, which ends it earlier than the server,
        not later."""
        return not self._is_lost and time.monotonic() < self._ends_at

    def check(self) -> None:
        """Raise LeaseLost if the lease is not held any more."""
        if not self.is_held:
            raise LeaseLost(f"The lease {self.name!r} is no longer held.")

    def note_renewal(self, asked_at: float) -> None:
        self._ends_at = asked_at + self._ttl_s

    def note_loss(self) -> None:
        self._is_lost = True


@asynccontextmanager
async def hold_lease(
    tools: AsyncTools,
    name: str,
    *,
    session_id: str | None,
    ttl_seconds: int,
    wait_seconds: float,
    paths: Sequence[str] | None = None,
) -> AsyncIterator[HeldLease]:
    """Acquire the lease, renew it in the background, release it at the end.

    Raises LeaseHeld if another agent still has it after `wait_seconds`.
    """
    asked_at = time.monotonic()
    acquired = await tools.acquire_lease(
        name,
        session_id=session_id,
        ttl_seconds=ttl_seconds,
        wait_seconds=wait_seconds or None,
        paths=paths,
    )
    if not acquired.acquired:
        raise LeaseHeld(
            f"{acquired.holder!r} holds the lease {acquired.name!r}.",
            details={
                "holder": acquired.holder,
                "expires_at": acquired.expires_at,
                "name": acquired.name,
                "paths": acquired.paths,
            },
        )
    if wait_seconds:  # most of that time may have passed before the lease began
        asked_at = time.monotonic()
    lease = HeldLease(acquired, ttl_seconds, asked_at)
    renewing = asyncio.create_task(_renew(tools, lease, ttl_seconds))
    try:
        yield lease
    finally:
        renewing.cancel()
        await _finish(asyncio.create_task(_release(tools, lease, renewing)))


async def _renew(tools: AsyncTools, lease: HeldLease, ttl_seconds: int) -> None:
    while lease.is_held:
        await asyncio.sleep(ttl_seconds / RENEWALS_A_TERM)
        asked_at = time.monotonic()
        try:
            renewed = await tools.acquire_lease(
                lease.name, session_id=lease.session_id, ttl_seconds=ttl_seconds
            )
        except ServerUnavailable:
            continue  # until it has expired by our own clock
        except SharedContextError:
            break
        if renewed.acquired and renewed.fencing_token == lease.fencing_token:
            lease.note_renewal(asked_at)
            continue
        if renewed.fencing_token is not None:
            # It had expired, so this is a new holding, which the caller did not ask for.
            with suppress(SharedContextError):
                await tools.release_lease(
                    lease.name, renewed.fencing_token, session_id=lease.session_id
                )
        break
    lease.note_loss()


async def _release(tools: AsyncTools, lease: HeldLease, renewing: asyncio.Task[None]) -> None:
    await asyncio.wait([renewing])
    lease.note_loss()
    with suppress(SharedContextError):  # it expires by itself
        await tools.release_lease(lease.name, lease.fencing_token, session_id=lease.session_id)


async def _finish(task: asyncio.Task[None]) -> None:
    """Wait for the task. If the caller is cancelled meanwhile, the task still continues."""
    _UNDER_WAY.add(task)
    task.add_done_callback(_UNDER_WAY.discard)
    await asyncio.shield(task)


# The loop keeps only weak references to tasks.
_UNDER_WAY: set[asyncio.Task[None]] = set()
