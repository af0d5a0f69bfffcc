"""The arguments of a search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b

from shared_context_server.models import Visibility


class SortOrder(StrEnum):
    SCORE = "score"
    NEWEST = "newest"


class Within(StrEnum):
    """Where to search."""

    MESSAGES = "messages"
    MEMORY = "memory"
    ALL = "all"


class SearchMode(StrEnum):
    FUZZY = "fuzzy"
    SEMANTIC = "semantic"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """The arguments of a search. `session_id` None: all sessions that the caller may see.
    `visibility` None: all that the caller may see. `cursor`: next_cursor of the page before."""

    session_id: str | None
    query: str
    fuzzy_threshold: float
    limit: int
    search_metadata: bool = True
    visibility: Visibility | None = None
    sender: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    sort: SortOrder = SortOrder.SCORE
    cursor: str | None = None
    within: Within = Within.MESSAGES
    mode: SearchMode = SearchMode.FUZZY

    def fingerprint(self) -> str:
        """Return a name of what is asked for, the same for all pages of it."""
        asked = replace(self, limit=0, cursor=None, sort=SortOrder.SCORE, mode=SearchMode.FUZZY)
        return blake2b(repr(asked).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
