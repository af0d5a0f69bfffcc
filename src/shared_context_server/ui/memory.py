"""Memory: entries by place and prefix, one entry with its value, and its deletion. memory_editing.py has
the form that writes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue
from pydantic_core import to_json
from starlette.responses import Response

from shared_context_server import policy
from shared_context_server.errors import SharedContextError
from shared_context_server.models import (
    EventKind,
    MemoryAddress,
    MemoryScope,
    Permission,
    SessionStatus,
)
from shared_context_server.services import memory, sessions
from shared_context_server.services.audit import get_audit_log
from shared_context_server.ui.live import change_stream
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.queries import check_text, read_choice, read_text

EVENTS_PATH = "/events/memory"
PAGE_SIZE = 100
SESSIONS_SHOWN = 50
MAX_KEY_CHARS = 255
MEMBERS_SHOWN = 200
SHORT_CHARS = 80  # a member of the value that is longer is folded
AUDIT_READ = 200  # entries of the audit log in which deletions of a key are looked for
_SCOPES = {scope.value: scope for scope in MemoryScope}


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object or a list. `short`: its JSON, None if it is folded."""

    name: str
    short: str | None
    value: JsonValue
    note: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """An earlier entry of the key that was deleted, as the audit log has it."""

    agent_id: str
    at: datetime


async def show_memory(page: PageRequest) -> Response:
    """The entries of one place, without values."""
    place = read_place(page)
    prefix = read_text(page, "prefix", MAX_KEY_CHARS)
    found = await memory.list_memory(
        page.services,
        page.caller,
        session_id=place.session_id,
        scope=place.scope,
        prefix=prefix,
        limit=PAGE_SIZE,
        cursor=page.query.get("cursor") or None,
    )
    return page.render(
        "memory.html",
        entries=found.entries,
        next_cursor=found.next_cursor,
        session_id=place.session_id or "",
        scope=place.scope.value,
        prefix=prefix,
        sessions=await list_sessions(page, place.session_id),
        is_later="cursor" in page.query,
        may_write=await may_write(page, place.session_id),
        live=page.address(EVENTS_PATH),
    )


async def show_entry(page: PageRequest) -> Response:
    """One entry with its value, and what is known of its versions."""
    place = read_place(page)
    entry = await memory.get_memory(page.services, page.caller, place)
    return page.render(
        "memory_entry.html",
        entry=entry,
        place=place,
        scope=place.scope.value,
        purpose=await find_purpose(page, place.session_id),
        members=_list_members(entry.value),
        count=len(entry.value) if isinstance(entry.value, dict | list) else None,
        size=len(to_json(entry.value)),
        deletions=await _list_deletions(page, place),
        may_write=await may_write(page, place.session_id),
        live=page.address(EVENTS_PATH),
    )


async def confirm_deletion(page: PageRequest) -> Response:
    """What a deletion removes, before it is done."""
    place = read_place(page)
    entry = await memory.get_memory(page.services, page.caller, place)
    back = entry_address(page, place)
    size = f"{len(to_json(entry.value)):,} bytes"
    return page.render(
        "confirm.html",
        title="Delete a memory entry",
        trail=[("Memory", page.address("/memory")), (place.key, back), ("Delete", None)],
        question=f"Delete {place.key}?",
        touches=[
            ("1", f"entry with version {entry.version}, last written by {entry.updated_by}"),
            (size, "of JSON, which are kept nowhere else"),
        ],
        note="If somebody writes it meanwhile, nothing is deleted. The audit log keeps who deleted it.",
        action=page.address("/memory/delete"),
        fields=[
            ("key", place.key),
            ("session_id", place.session_id or ""),
            ("scope", place.scope.value),
            ("expected_version", str(entry.version)),
        ],
        verb="Delete it",
        back=back,
    )


async def delete_entry(page: PageRequest) -> Response:
    """Delete the entry if it still has the version that was shown."""
    version = page.form.get("expected_version", "")
    session_id = page.form.get("session_id") or None
    scope = page.form.get("scope", "")
    await page.call(
        "delete_memory",
        key=page.form.get("key", ""),
        session_id=session_id,
        scope=scope,
        expected_version=version,
    )
    return page.redirect(page.address("/memory", session_id=session_id, scope=scope))


def read_place(page: PageRequest) -> MemoryAddress:
    """Return the place that the address names; without a key that of all its entries."""
    key = check_text(page.query.get("key", ""), "key", MAX_KEY_CHARS)
    scope = read_scope(page.query)
    return policy.memory_address(page.caller, key, read_text(page, "session_id") or None, scope)


def read_scope(given: Mapping[str, str]) -> MemoryScope:
    return _SCOPES[read_choice(given, "scope", _SCOPES, MemoryScope.SHARED.value)]


def entry_address(page: PageRequest, place: MemoryAddress) -> str:
    return page.address(
        "/memory/entry", key=place.key, session_id=place.session_id, scope=place.scope.value
    )


async def may_write(page: PageRequest, session_id: str | None) -> bool:
    """Return whether the person may write memory there: not in closed sessions."""
    try:
        policy.require_permission(page.caller, Permission.WRITE)
        if session_id is not None:
            session = await page.services.store.sessions.get(session_id)
            policy.require_session_write(page.caller, session)
    except SharedContextError:
        return False
    return True


async def find_purpose(page: PageRequest, session_id: str | None) -> str | None:
    """Return the purpose of the session, None if there is none that the person may see."""
    if session_id is None:
        return None
    return (await sessions.find_purposes(page.services, page.caller, [session_id])).get(session_id)


async def list_sessions(page: PageRequest, chosen: str | None) -> list[tuple[str, str]]:
    """Return the newest active sessions as options, with the chosen one."""
    found = await sessions.list_sessions(
        page.services,
        page.caller,
        status=SessionStatus.ACTIVE,
        created_by=None,
        limit=SESSIONS_SHOWN,
        cursor=None,
    )
    options = [("", "None: of the whole server")]
    options += [(one.session.id, one.session.purpose[:80]) for one in found.sessions]
    if chosen is not None and chosen not in dict(options):
        options.append((chosen, chosen))
    return options


async def _list_deletions(page: PageRequest, place: MemoryAddress) -> list[Deletion]:
    """Return when entries of this key were deleted before, newest first: for admins and shared memory,
    as far as the newest entries of the audit log tell."""
    if not page.caller.is_admin or place.scope is not MemoryScope.SHARED:
        return []
    found = await get_audit_log(
        page.services,
        page.caller,
        session_id=place.session_id,
        agent_id=None,
        event_type="memory_deleted",
        start_time=None,
        limit=AUDIT_READ,
    )
    return [
        Deletion(one.agent_id, one.timestamp)
        for one in found.entries
        if one.session_id == place.session_id
        and one.details.get("key") == place.key
        and one.details.get("scope") == place.scope
    ]


def _list_members(value: JsonValue) -> list[Member] | None:
    """Return the first members of an object or a list; None for any other value."""
    if isinstance(value, dict):
        pairs = list(value.items())[:MEMBERS_SHOWN]
    elif isinstance(value, list):
        pairs = [(str(number), one) for number, one in enumerate(value[:MEMBERS_SHOWN])]
    else:
        return None
    return [_to_member(name, one) for name, one in pairs]


def _to_member(name: str, value: JsonValue) -> Member:
    text = to_json(value).decode()
    note = f"{len(text):,} characters"
    if isinstance(value, dict | list):
        note = f"{len(value):,} {'members' if isinstance(value, dict) else 'elements'}"
    return Member(name, text if len(text) <= SHORT_CHARS else None, value, note)


PAGES = (
    Page("/memory", show_memory),
    Page("/memory/entry", show_entry),
    Page("/memory/delete", confirm_deletion, delete_entry, permission=Permission.WRITE),
    change_stream(EVENTS_PATH, (EventKind.MEMORY_CHANGED, EventKind.SESSION_DELETED), tick_s=30.0),
)
