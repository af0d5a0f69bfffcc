"""Search memory entries that a caller may see: keys, values and metadata. Without an index, all of them
are read."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from shared_context_server.errors import Conflict, MemoryNotFound, SessionNotFound
from shared_context_server.models import Caller, MemoryEntry, MemoryScope
from shared_context_server.services.context import SearchServices
from shared_context_server.services.indexed_documents import join_texts, memory_text
from shared_context_server.services.memory import get_memory, list_memory
from shared_context_server.services.previews import Preview, preview_in_steps
from shared_context_server.services.ranking import Candidate, MemoryHit
from shared_context_server.services.scoring import Hit, Query, score_in_steps
from shared_context_server.services.search_request import SearchRequest
from shared_context_server.services.sessions import list_session_ids
from shared_context_server.services.slices import run_in_slices
from shared_context_server.storage.contract import MemoryListing

LISTED_AT_ONCE = 100


@dataclass(slots=True)
class MemoryMatches:
    """What was found. `scanned`: the number of entries compared. `exhaustive`: these are all."""

    matches: list[Candidate] = field(default_factory=list)
    scanned: int = 0
    exhaustive: bool = True


async def search_memory(
    services: SearchServices, caller: Caller, query: Query, request: SearchRequest, ends_at: float
) -> MemoryMatches:
    """Return the caller's own and the shared entries that match: of the request's session, or of no
    session and of all that the caller may see. `sender` and the times of the request are compared
    with who changed an entry last, and when."""
    found = MemoryMatches()
    async for listing in _list_entries(services, caller, request.session_id):
        if not is_wanted(listing, request):
            continue
        if time.monotonic() >= ends_at:
            found.exhaustive = False
            break
        try:
            entry = await get_memory(services, caller, listing.address)
        except (MemoryNotFound, SessionNotFound, Conflict):
            continue  # deleted or expired meanwhile, or not readable
        hit = await match_entry(query, request, entry, ends_at)
        found.scanned += 1
        if hit is not None:
            found.matches.append(Candidate.of_memory(hit))
    return found


async def _list_entries(
    services: SearchServices, caller: Caller, session_id: str | None
) -> AsyncIterator[MemoryListing]:
    async for place in _list_places(services, caller, session_id):
        for scope in MemoryScope:
            cursor: str | None = None
            while True:
                try:
                    page = await list_memory(
                        services,
                        caller,
                        session_id=place,
                        scope=scope,
                        prefix="",
                        limit=LISTED_AT_ONCE,
                        cursor=cursor,
                    )
                except SessionNotFound:
                    if session_id is not None:
                        raise
                    break  # deleted meanwhile
                for listing in page.entries:
                    yield listing
                cursor = page.next_cursor
                if cursor is None:
                    break


async def _list_places(
    services: SearchServices, caller: Caller, session_id: str | None
) -> AsyncIterator[str | None]:
    yield session_id
    if session_id is None:
        async for visible in list_session_ids(services, caller):
            yield visible


def is_wanted(listing: MemoryListing | MemoryEntry, request: SearchRequest) -> bool:
    return (
        request.visibility is None  # memory has none
        and (request.sender is None or listing.updated_by == request.sender)
        and (request.start_time is None or listing.updated_at >= request.start_time)
        and (request.end_time is None or listing.updated_at <= request.end_time)
    )


async def match_entry(
    query: Query, request: SearchRequest, entry: MemoryEntry, ends_at: float
) -> MemoryHit | None:
    """Return the hit if the entry reaches the threshold in time."""
    text = memory_text(entry)
    texts = [text]
    if request.search_metadata and entry.metadata:
        texts.append(join_texts(entry.metadata))
    found: dict[str, tuple[Hit, ...]] = {}
    scoring = score_in_steps(query, texts, found)
    scores = await run_in_slices(scoring, ends_at, chars=sum(map(len, texts)))
    if scores is None or max(scores) < max(request.fuzzy_threshold, 0.01):
        return None
    preview = preview_in_steps(query, text, found)
    shown = await run_in_slices(preview, ends_at, chars=len(text)) or Preview("")
    return MemoryHit(
        address=entry.address,
        version=entry.version,
        updated_at=entry.updated_at,
        updated_by=entry.updated_by,
        score=max(scores),
        match_preview=shown.text,
        highlights=shown.highlights,
    )
