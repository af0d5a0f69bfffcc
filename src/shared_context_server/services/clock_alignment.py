"""Keep the clocks of all servers on one machine aligned when the system clock is set back."""

from __future__ import annotations

from shared_context_server.observability.logs import get_logger
from shared_context_server.steady_time import SteadyClock
from shared_context_server.storage import Store

ALIGN_INTERVAL_S = 5.0
MIN_STEP_US = 1_000_000  # less than this is not worth a write
# A larger difference is taken for another machine's: two that were copied while they
# ran have the same boot id. It is also how far a clock that was wrong for a while can be ahead.
MAX_STEP_US = 86_400 * 1_000_000
LOGGED_LEAD_S = 5.0

_log = get_logger("server")


class ClockAlignment:
    """Keeps the clock of this process from falling behind the times that others on this machine
    gave."""

    def __init__(self, store: Store, clock: SteadyClock) -> None:
        self._store = store
        self._clock = clock
        self._is_lead_logged = False

    async def align(self) -> None:
        """Read how far ahead the others are, and store how far ahead this process is."""
        self._log_lead()
        boot_id = self._clock.boot_id
        if boot_id is None:
            return
        own = self._clock.offset_us
        noted = await self._store.maintenance.find_clock_offset(boot_id)
        if noted is not None and own < noted <= own + MAX_STEP_US:
            self._clock.keep_up_with(noted)
        elif noted is None or own >= noted + MIN_STEP_US:
            await self._store.maintenance.note_clock_offset(boot_id, own)

    def _log_lead(self) -> None:
        lead_s = self._clock.lead_s
        if lead_s > LOGGED_LEAD_S and not self._is_lead_logged:
            _log.warning(
                "the system clock was set back: stored times continue after the latest one",
                ahead_s=round(lead_s, 3),
            )
        self._is_lead_logged = lead_s > LOGGED_LEAD_S
