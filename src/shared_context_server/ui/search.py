"""Search over all sessions that the person may see, with highlights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Message
from shared_context_server.services import search
from shared_context_server.services.ranking import MemoryHit
from shared_context_server.services.search_request import SearchRequest, SortOrder, Within
from shared_context_server.services.sessions import find_purposes
from shared_context_server.ui.log_filters import SINCE, read_filter
from shared_context_server.ui.messages import choose_hue
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.queries import read_choice

PAGE_SIZE = 20
THRESHOLD = 45  # lower than the tools have: people see at a glance what does not fit
MAX_QUERY_CHARS = 500
WITHIN = [("messages", "Messages"), ("memory", "Memory"), ("all", "Both")]
SORTS = [("score", "Best match"), ("newest", "Newest")]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a preview, and whether it is a match."""

    text: str
    is_match: bool


@dataclass(frozen=True, slots=True)
class MessageFound:
    """A message that matches, with its session's purpose. `hue` numbers the colour of the name."""

    message: Message
    purpose: str
    score: float
    parts: list[Part]
    hue: int


@dataclass(frozen=True, slots=True)
class EntryFound:
    """A memory entry that matches."""

    hit: MemoryHit
    parts: list[Part]


async def show_search(page: PageRequest) -> Response:
    """The form, and one page of results."""
    query = page.query.get("q", "").strip()
    within = read_choice(page.query, "within", dict(WITHIN), WITHIN[0][0])
    sort = read_choice(page.query, "sort", dict(SORTS), SORTS[0][0])
    chosen = read_filter(page.query)
    context: dict[str, Any] = {
        "query": query,
        "given": chosen.given,
        "within": within,
        "sort": sort,
        "within_options": WITHIN,
        "sort_options": SORTS,
        "since_options": [("", "Any time"), *((name, label) for name, (label, _) in SINCE.items())],
    }
    if not query:
        return page.render("search.html", answer=None, messages=[], entries=[], **context)
    if len(query) > MAX_QUERY_CHARS:
        raise InvalidArgument(
            f"The search has more than {MAX_QUERY_CHARS} characters.",
            field="q",
            suggestion="Search for a few of its words.",
        )
    request = SearchRequest(
        session_id=page.query.get("session") or None,
        query=query,
        fuzzy_threshold=THRESHOLD,
        limit=PAGE_SIZE,
        visibility=chosen.log.visibility,
        sender=chosen.log.sender,
        start_time=chosen.log.start_time,
        end_time=chosen.log.end_time,
        sort=SortOrder(sort),
        cursor=page.query.get("cursor") or None,
        within=Within(within),
    )
    answer = await search.search_context(page.services, page.caller, request)
    session_ids = {hit.message.session_id for hit in answer.hits}
    purposes = await find_purposes(page.services, page.caller, session_ids)
    messages = [
        MessageFound(
            hit.message,
            purposes.get(hit.message.session_id, hit.message.session_id),
            hit.score,
            cut(hit.match_preview, hit.highlights),
            choose_hue(hit.message.sender),
        )
        for hit in answer.hits
    ]
    entries = [EntryFound(hit, cut(hit.match_preview, hit.highlights)) for hit in answer.memory]
    again = {"q": query, "within": within, "sort": sort, "session": page.query.get("session")}
    return page.render(
        "search.html",
        answer=answer,
        messages=messages,
        entries=entries,
        more=page.address("/search", **(again | chosen.given), cursor=answer.next_cursor)
        if answer.next_cursor
        else None,
        **context,
    )


def cut(text: str, highlights: list[tuple[int, int]]) -> list[Part]:
    """Return the text in parts, of which those between the offsets are matches."""
    parts, end = [], 0
    for start, stop in sorted(highlights):
        if start < end:
            continue
        parts += [Part(text[end:start], False), Part(text[start:stop], True)]
        end = stop
    parts.append(Part(text[end:], False))
    return [part for part in parts if part.text]


PAGES = (Page("/search", show_search),)
