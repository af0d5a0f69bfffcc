"""Hold a task while a block of code works on it, and renew its claim in the background."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from shared_context_client._generated.results import (
    LeaseAcquired,
    TaskChanged,
    TaskItem,
    TaskOutcome,
)
from shared_context_client._generated.tools import AsyncTools
from shared_context_client.errors import ServerUnavailable, SharedContextError
from shared_context_client.leases import RENEWALS_A_TERM, HeldLease


class ClaimedTask:
    """A task that we have claimed. `item`: the task as it was claimed. `lease`: pass it to writes as
    `lease=`, so that the server refuses them once the task is another worker's."""

    def __init__(
        self, tools: AsyncTools, item: TaskItem, *, ttl_seconds: int, asked_at: float
    ) -> None:
        assert item.fencing_token is not None
        assert item.expires_at is not None
        self._tools = tools
        self._ttl_seconds = ttl_seconds
        self._is_stopping = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None
        self.item = item
        self.id = item.id
        acquired = LeaseAcquired(
            acquired=True,
            name=f"task:{item.id}",
            session_id=item.session_id,
            fencing_token=item.fencing_token,
            holder=item.claimed_by,
            expires_at=item.expires_at,
        )
        self.lease = HeldLease(acquired, ttl_seconds, asked_at)
        self.is_finished = False

    def __repr__(self) -> str:
        return f"ClaimedTask({self.id}, {self.item.title!r})"

    async def finish(
        self, *, outcome: TaskOutcome | None = None, result: Any = None
    ) -> TaskChanged:
        """End the claim: done unless `outcome` says otherwise. Raises LeaseLost, and changes
        nothing, if the task is another worker's now."""
        await self._stop_renewing()
        changed = await self._tools.finish_task(
            self.item.session_id,
            self.id,
            self.lease.fencing_token,
            outcome=outcome,
            result=result,
        )
        self.is_finished = True
        self.lease.note_loss()
        return changed

    def start_renewing(self) -> None:
        self._renewing = asyncio.create_task(self._renew())

    async def release(self) -> None:
        """Give the task back unless it is finished. Errors are ignored: the claim runs out."""
        await self._stop_renewing()
        if not self.is_finished:
            with suppress(SharedContextError):
                await self.finish(outcome="released")

    async def _stop_renewing(self) -> None:
        # A renewal under way is waited for: one that came after the end would claim the task anew.
        self._is_stopping.set()
        if self._renewing is not None:
            await asyncio.wait([self._renewing])

    async def _renew(self) -> None:
        while self.lease.is_held:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ttl_seconds / RENEWALS_A_TERM):
                    await self._is_stopping.wait()
                return
            asked_at = time.monotonic()
            try:
                answer = await self._tools.claim_task(
                    self.item.session_id, task_id=self.id, ttl_seconds=self._ttl_seconds
                )
            except ServerUnavailable:
                continue  # until it has expired by our own clock
            except SharedContextError:
                break
            renewed = answer.task
            if renewed is None:
                break
            if renewed.fencing_token == self.lease.fencing_token:
                self.lease.note_renewal(asked_at)
                continue
            if renewed.fencing_token is not None:
                # The claim had run out, so this is a new one, which nobody asked for.
                with suppress(SharedContextError):
                    await self._tools.finish_task(
                        self.item.session_id,
                        self.id,
                        renewed.fencing_token,
                        outcome="released",
                    )
            break
        self.lease.note_loss()


@asynccontextmanager
async def work_on_task(
    tools: AsyncTools,
    session_id: str,
    *,
    task_id: int | None,
    ttl_seconds: int,
    wait_seconds: float,
) -> AsyncIterator[ClaimedTask | None]:
    """Claim a task, renew the claim in the background, and release the task at the end unless it was
    finished. None if there is no task for us after `wait_seconds`."""
    asked_at = time.monotonic()
    answer = await tools.claim_task(
        session_id, task_id=task_id, ttl_seconds=ttl_seconds, wait_seconds=wait_seconds or None
    )
    if answer.task is None:
        yield None
        return
    if wait_seconds:  # most of that time may have passed before the claim began
        asked_at = time.monotonic()
    task = ClaimedTask(tools, answer.task, ttl_seconds=ttl_seconds, asked_at=asked_at)
    task.start_renewing()
    try:
        yield task
    finally:
        releasing = asyncio.create_task(task.release())
        _UNDER_WAY.add(releasing)
        releasing.add_done_callback(_UNDER_WAY.discard)
        await asyncio.shield(releasing)


# The loop keeps only weak references to tasks.
_UNDER_WAY: set[asyncio.Task[None]] = set()
