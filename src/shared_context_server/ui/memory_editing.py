"""The form that writes a memory entry: a new one, or the next version of the one that was shown.

A write names the version that the person has seen. If somebody else has written meanwhile, the answer is
the form again with what the person wrote, beside what is stored now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue
from starlette.responses import Response

from shared_context_server import policy
from shared_context_server.display import show_printable
from shared_context_server.errors import (
    Conflict,
    ContentTooLarge,
    InvalidArgument,
    MemoryNotFound,
    SessionClosed,
    SharedContextError,
)
from shared_context_server.models import MemoryAddress, MemoryEntry, MemoryMode, Permission
from shared_context_server.services import memory
from shared_context_server.services.memory import MemoryChange
from shared_context_server.steady_time import utc_now
from shared_context_server.tools.dispatch import parse_arguments, parse_json
from shared_context_server.tools.memory import SetMemory
from shared_context_server.ui.memory import (
    entry_address,
    find_purpose,
    list_sessions,
    read_place,
    read_scope,
)
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.problems import Problem
from shared_context_server.ui.templates import to_pretty_json

JSON, TEXT = "json", "text"
KINDS = [(JSON, "JSON"), (TEXT, "Text, stored as it is")]
AS_NOW = "as-now"
LIVES = [
    ("", "For ever"),
    ("3600", "1 hour"),
    ("86400", "1 day"),
    ("604800", "7 days"),
    ("2592000", "30 days"),
]


@dataclass(frozen=True, slots=True)
class Draft:
    """What the form contains. `version`: the one that the person has seen, 0 if there was none."""

    key: str
    kind: str
    text: str
    life: str
    version: int


async def show_form(page: PageRequest) -> Response:
    """The form for a new entry, or with the value of the one that the address names."""
    place = read_place(page)
    if not place.key:
        return await _render(page, place, Draft("", JSON, "", "", 0))
    entry = await memory.get_memory(page.services, page.caller, place)
    life = AS_NOW if entry.expires_at else ""
    draft = Draft(place.key, *_to_text(entry.value), life, entry.version)
    return await _render(page, place, draft, entry=entry)


async def write_entry(page: PageRequest) -> Response:
    """Write the value if the entry still has the version that the person has seen."""
    form = page.form
    draft = Draft(
        key=form.get("key", ""),
        kind=form.get("kind", JSON),
        text=form.get("value", "").replace("\r\n", "\n"),
        life=form.get("life", ""),
        version=_read_version(form.get("expected_version", "")),
    )
    session_id = form.get("session_id") or None
    place = policy.memory_address(page.caller, draft.key, session_id, read_scope(form))
    stored = await _find_entry(page, place) if draft.key else None
    try:
        change = _make_change(draft, place, stored)
        await memory.set_memory(page.services, page.caller, place, change, None, by_hand=True)
    except (InvalidArgument, ContentTooLarge, SessionClosed, Conflict) as exc:
        stored = await _find_entry(page, place) if draft.key else None
        return await _render(page, place, draft, entry=stored, problem=_explain(exc, stored))
    return page.redirect(entry_address(page, place))


def _make_change(draft: Draft, place: MemoryAddress, stored: MemoryEntry | None) -> MemoryChange:
    """Return the write of this draft. Metadata stay as they are stored, and so does the expiry if the
    draft says so. Raises InvalidArgument and ContentTooLarge."""
    expires_in: int | None = None
    if draft.life == AS_NOW:
        expires_in = _seconds_left(stored.expires_at) if stored and stored.expires_at else None
    elif draft.life not in dict(LIVES):
        raise InvalidArgument("Kept must be one of the list.", field="life")
    elif draft.life:
        expires_in = int(draft.life)
    given = {
        "key": draft.key,
        "value": _read_value(draft),
        "session_id": place.session_id,
        "expected_version": draft.version,
        "expires_in": expires_in,
    }
    arguments = parse_arguments(SetMemory, given)
    assert isinstance(arguments, SetMemory)
    return MemoryChange(
        mode=MemoryMode.REPLACE,
        value=arguments.value,
        is_value_given=True,
        metadata=stored.metadata if stored else None,
        expires_in=arguments.expires_in,
        expected_version=arguments.expected_version,
    )


def _read_value(draft: Draft) -> JsonValue:
    if draft.kind not in dict(KINDS):
        raise InvalidArgument("Write it as must be one of the list.", field="kind")
    if draft.kind == TEXT:
        return draft.text
    try:
        value: JsonValue = parse_json(draft.text.encode(), "value")
    except InvalidArgument as exc:
        raise InvalidArgument(
            exc.message,
            field="value",
            suggestion="Texts in JSON stand in double quotes. To store plain text, choose Text.",
        ) from exc
    return value


def _read_version(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(
            "expected_version is not a number.", field="expected_version"
        ) from None


def _seconds_left(moment: datetime) -> int:
    return max(1, math.ceil((moment - utc_now()).total_seconds()))


def _to_text(value: JsonValue) -> tuple[str, str]:
    """Return the kind and the text of a value in the form, from which the same value is read again. A
    text with characters that a browser would change or hide is shown as JSON, with escapes."""
    if isinstance(value, str) and show_printable(value) == value:
        return TEXT, value
    return JSON, to_pretty_json(value)


async def _find_entry(page: PageRequest, place: MemoryAddress) -> MemoryEntry | None:
    try:
        return await memory.get_memory(page.services, page.caller, place)
    except MemoryNotFound:
        return None


def _explain(error: SharedContextError, stored: MemoryEntry | None) -> Problem:
    """Return the problem; a conflict in words about the form."""
    if not isinstance(error, Conflict) or isinstance(error, SessionClosed):
        return Problem.of(error)
    if stored is None:
        message = "The entry was deleted or has expired since you opened it. Nothing was written."
        hint = "Save again to create it with your value."
    else:
        message = (
            f"{stored.updated_by} has written version {stored.version} since you opened the form. "
            "Nothing was written."
        )
        hint = "Below is what is stored now. Take over what you need, then save your value over it."
    return Problem(error.status, error.code, message, hint)


async def _render(
    page: PageRequest,
    place: MemoryAddress,
    draft: Draft,
    *,
    entry: MemoryEntry | None = None,
    problem: Problem | None = None,
) -> Response:
    """Answer with the form. After a conflict it names the version that is stored now, which its page
    shows, so that saving again writes over what the person has seen."""
    is_conflict = problem is not None and problem.code == Conflict.code
    lives = list(LIVES)
    if entry is not None and entry.expires_at is not None:
        lives.insert(0, (AS_NOW, "As long as now"))
    seen = entry.version if entry else 0
    return page.render(
        "memory_edit.html",
        # Scripts put the form in the place of the one that was sent.
        status_code=200 if problem is None or page.is_fragment else problem.status,
        problem=problem,
        draft=draft,
        version=seen if is_conflict else draft.version,
        stored=entry if is_conflict else None,
        place=place,
        scope=place.scope.value,
        expires_at=entry.expires_at if entry else None,
        purpose=await find_purpose(page, place.session_id),
        sessions=[] if draft.version else await list_sessions(page, place.session_id),
        kinds=KINDS,
        lives=lives,
    )


PAGES = (Page("/memory/edit", show_form, write_entry, permission=Permission.WRITE),)
