"""The port for the store as a whole: health, closing, purging, statistics, clock offsets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Gauges for /metrics; NaN if unknown. `free_bytes`: of the database's file, used by nothing.
    `extra`: a backend's own gauges, by metric name."""

    active_sessions: float
    active_agents: float
    free_bytes: float = math.nan
    extra: dict[str, float] = field(default_factory=dict)


class Maintenance(Protocol):
    """Operations on the store as a whole."""

    async def ping(self) -> None:
        """Return if the store answers reads and accepts a write. Raises Unavailable or
        StorageDamaged."""

    def begin_closing(self) -> None:
        """Announce that the server is about to stop. Calls are still served, but they raise
        Unavailable instead of waiting long for a database that does not answer."""

    async def aclose(self) -> None:
        """Finish the writes in progress, then release everything. Later calls raise Unavailable."""

    async def purge(
        self, *, expired_before: datetime, idempotency_before: datetime, audit_before: datetime
    ) -> int:
        """Remove expired memory and credentials, old idempotency and audit rows, and old changes of
        the change stream. It works in bounded steps that do not hold up other writers. Return the
        number of rows removed."""

    async def release_free_space(self) -> int:
        """Give the space of deleted rows back to the file system, if there is much of it; return how
        many bytes. It takes bounded time, in steps of some milliseconds, and lets the writes of
        others go first."""

    async def get_stats(self, *, active_since: datetime) -> StoreStats:
        """Return the numbers of active sessions and of agents seen since then."""

    async def measure_reusable(self) -> int:
        """Return how many bytes of the database's files are free for the next writes, because rows were
        deleted; 0 if that is not known."""

    async def find_clock_offset(self, boot_id: str) -> int | None:
        """Return the largest offset noted for this boot of a machine, in microseconds."""

    async def note_clock_offset(self, boot_id: str, offset_us: int) -> None:
        """Store the offset, unless a larger one is stored."""
