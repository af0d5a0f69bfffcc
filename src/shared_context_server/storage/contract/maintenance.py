"""The store as a whole: health, closing, removing old rows, figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Gauges for /metrics, NaN for what is not known. `extra` holds a backend's own, by metric
    name."""

    active_sessions: float
    active_agents: float
    extra: dict[str, float] = field(default_factory=dict)


class Maintenance(Protocol):
    """What concerns the store as a whole."""

    async def ping(self) -> None:
        """Return if the store answers reads and takes a write, else raise Unavailable or StorageDamaged."""

    def begin_closing(self) -> None:
        """Say that the server is about to end. Calls are served as before, but those under way and
        those to come raise Unavailable rather than wait for long for a database that is silent."""

    async def aclose(self) -> None:
        """Finish the writes under way, then release everything. Further calls raise Unavailable."""

    async def purge(
        self, *, expired_before: datetime, idempotency_before: datetime, audit_before: datetime
    ) -> int:
        """Remove expired memory and credentials, old idempotency and audit rows, and the older part
        of the change stream, in bounded steps that do not hold up other writers; return how many rows went."""

    async def get_stats(self, *, active_since: datetime) -> StoreStats:
        """Counts of active sessions and of agents seen since then."""

    async def find_clock_offset(self, boot_id: str) -> int | None:
        """The largest that was noted for this boot of a machine, microseconds."""

    async def note_clock_offset(self, boot_id: str, offset_us: int) -> None:
        """Keep it, unless a larger one is kept."""
