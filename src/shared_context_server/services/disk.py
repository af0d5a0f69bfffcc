"""The disk reserve: with too little free space, what adds data is refused, and the rest goes on.

So there is room left for what makes room (deleting needs some), for signing in, cursors and leases,
and for the programs beside the server.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from shared_context_server.errors import SharedContextError, StorageFull
from shared_context_server.observability.logs import get_logger
from shared_context_server.storage import Store

CHECK_INTERVAL_S = 1.0
_LOG_PART = 5
USUAL_RESERVE_MB = 50
USUAL_PART = 20
BYTES_PER_MB = 1024 * 1024

_log = get_logger("disk")


def find_reserve(reserve_mb: int | None, total_bytes: int) -> int:
    """Return the reserve of a disk of this size, in bytes: as set, otherwise USUAL_RESERVE_MB, but then
    of a small disk a part only."""
    if reserve_mb is not None:
        return reserve_mb * BYTES_PER_MB
    return min(USUAL_RESERVE_MB * BYTES_PER_MB, total_bytes // USUAL_PART)


class DiskReserve:
    """Whether the disk of the database has more free space than its reserve.

    Space in the database's own files that deletions have freed counts too, as long as a fifth of the
    reserve is free on the disk: SQLite writes its log there first. `check` measures, once in
    CHECK_INTERVAL_S by whoever runs it; `find_shortage` only looks at the result. `directory` None: the
    database is elsewhere, and only it knows its disk.
    """

    def __init__(self, directory: Path | None, reserve_mb: int | None, store: Store) -> None:
        self._store = store
        self._directory = directory
        self._reserve_mb = reserve_mb
        self.reserve_bytes = 0
        self.is_reached = False
        self.free_bytes: int | None = None

    @property
    def is_on(self) -> bool:
        return self._directory is not None and self._reserve_mb != 0

    async def check(self) -> None:
        """Measure the free space. A disk that cannot be measured counts as before."""
        if self._directory is None:
            return
        try:
            usage = await asyncio.to_thread(shutil.disk_usage, self._directory)
        except OSError as exc:
            _log.warning("the disk cannot be measured", error=str(exc.strerror), throttle=True)
            return
        self.free_bytes = usage.free
        self.reserve_bytes = find_reserve(self._reserve_mb, usage.total)
        was_reached = self.is_reached
        self.is_reached = self.is_on and not await self._has_space(usage.free)
        if self.is_reached != was_reached:
            self._tell()

    async def _has_space(self, free_bytes: int) -> bool:
        reserve_bytes = self.reserve_bytes
        if free_bytes >= reserve_bytes:
            return True
        if free_bytes < reserve_bytes // _LOG_PART:
            return False
        try:
            return free_bytes + await self._store.maintenance.measure_reusable() >= reserve_bytes
        except SharedContextError:
            return False

    def find_shortage(self) -> StorageFull | None:
        """Return the error for what adds data if only the reserve is left."""
        if not self.is_reached:
            return None
        return StorageFull(
            f"The disk of the storage has less than {self.reserve_bytes // BYTES_PER_MB} MiB left, its "
            "reserve. Reading and deleting still work."
        )

    def _tell(self) -> None:
        free_mb = (self.free_bytes or 0) // BYTES_PER_MB
        facts = {
            "free_mb": free_mb,
            "reserve_mb": self.reserve_bytes // BYTES_PER_MB,
            "directory": str(self._directory),
        }
        if self.is_reached:
            _log.error("the disk is nearly full: what adds data is refused", **facts)
        else:
            _log.warning("the disk has room again: what adds data is accepted", **facts)
