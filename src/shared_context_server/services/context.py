"""The parts of a running server that every service function takes as its first argument."""

from __future__ import annotations

from dataclasses import dataclass

from shared_context_server.auth.identity import Identity
from shared_context_server.auth.limits import RateLimits
from shared_context_server.clock import ClockReader, SensorReader
from shared_context_server.events.bus import Bus
from shared_context_server.observability.history import History
from shared_context_server.services.candidates import Candidates
from shared_context_server.services.mentions import Mentions
from shared_context_server.services.presence import Presence
from shared_context_server.services.quotas import Quotas
from shared_context_server.services.search_process import SearchProcess
from shared_context_server.services.shared_reads import SharedReads
from shared_context_server.services.slots import Slots
from shared_context_server.services.turns import Turns
from shared_context_server.services.vectors import Vectors
from shared_context_server.settings import Settings
from shared_context_server.storage import Store


@dataclass(frozen=True, slots=True)
class SearchServices:
    """The parts that a search reads with."""

    store: Store
    candidates: Candidates
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Services(SearchServices):
    """The parts of one running server that services need. Made by the composition root. `search_process`:
    searches in place of this process; None if it may start none."""

    search_turns: Turns
    search_process: SearchProcess | None
    settings: Settings
    identity: Identity
    presence: Presence
    clock: ClockReader
    sensors: SensorReader
    bus: Bus
    shared_reads: SharedReads
    limits: RateLimits
    slots: Slots
    quotas: Quotas
    mentions: Mentions
    history: History
