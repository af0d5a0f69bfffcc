"""The result of a search."""

from __future__ import annotations

from dataclasses import dataclass

from shared_context_server.models import Message
from shared_context_server.services.ranking import MemoryHit


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A match. `shortened`: the answer is full, so the message comes without metadata and
    recipients, and with its preview in place of the content. `highlights`: where the matches stand
    in `match_preview`."""

    message: Message
    score: float
    match_preview: str
    highlights: list[tuple[int, int]]
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The result of a search. `scanned`: the number of visible messages and entries that it
    covers. `exhaustive`: these are all. `next_cursor`: None if
    there is nothing after this page."""

    hits: list[SearchHit]
    memory: list[MemoryHit]
    next_cursor: str | None
    scanned: int
    exhaustive: bool
    search_time_ms: float
