"""The tasks of a session as a board, as a list, and one by one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from shared_context_server.errors import TaskNotFound
from shared_context_server.models import EventKind, SessionStatus, SessionSummary, Task, TaskState
from shared_context_server.services import sessions, tasks
from shared_context_server.storage.contract import TaskCounts
from shared_context_server.ui.live import change_stream
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.queries import check_text, read_choice, read_text

EVENTS_PATH = "/events/tasks"
ON_BOARD = 20  # tasks in a column
PAGE_SIZE = 100
SESSIONS_SHOWN = 40
_STATES = {state.value: state for state in TaskState}
_NEWEST_FIRST = (TaskState.DONE, TaskState.FAILED)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the board. `count`: all tasks in this state, of which some are shown."""

    state: TaskState
    count: int
    tasks: list[Task]


async def show_tasks(page: PageRequest) -> Response:
    """The board of a session; without one, the sessions that have tasks."""
    session_id = read_text(page, "session_id")
    if not session_id:
        return await _show_sessions(page)
    state = _STATES.get(read_choice(page.query, "state", _STATES, ""))
    session = (await _summarize(page, session_id)).session
    shared: dict[str, Any] = {"session": session, "live": page.address(EVENTS_PATH)}
    if state is not None:
        listed = await tasks.list_tasks(
            page.services,
            page.caller,
            session_id,
            state=state,
            limit=PAGE_SIZE,
            cursor=page.query.get("cursor") or None,
        )
        return page.render(
            "task_list.html",
            state=state,
            listed=listed.page,
            next_cursor=listed.next_cursor,
            is_later="cursor" in page.query,
            **shared,
        )
    columns = await asyncio.gather(*(_make_column(page, session_id, one) for one in TaskState))
    return page.render("tasks.html", columns=columns, **shared)


async def show_task(page: PageRequest) -> Response:
    """One task with what it depends on and what depends on it."""
    session_id = check_text(page.path_param("session_id"), "session_id")
    number = page.path_param("task_id")
    task_id = int(number) if number.isascii() and number.isdigit() and len(number) < 17 else 0
    if task_id == 0:
        raise TaskNotFound(0)
    detail = await tasks.get_task(page.services, page.caller, session_id, task_id)
    session = (await _summarize(page, session_id)).session
    return page.render(
        "task.html",
        detail=detail,
        task=detail.task,
        session=session,
        live=page.address(EVENTS_PATH),
    )


async def _show_sessions(page: PageRequest) -> Response:
    found = await sessions.list_sessions(
        page.services,
        page.caller,
        status=SessionStatus.ACTIVE,
        created_by=None,
        limit=SESSIONS_SHOWN,
        cursor=page.query.get("cursor") or None,
    )
    counts = await asyncio.gather(*(_count(page, one.session.id) for one in found.sessions))
    rows = [
        (summary.session, one)
        for summary, one in zip(found.sessions, counts, strict=True)
        if one.total
    ]
    return page.render(
        "task_sessions.html",
        rows=rows,
        next_cursor=found.next_cursor,
        is_later="cursor" in page.query,
        live=page.address(EVENTS_PATH),
    )


async def _summarize(page: PageRequest, session_id: str) -> SessionSummary:
    detail = await sessions.get_session(page.services, page.caller, session_id)
    return detail.summary


async def _count(page: PageRequest, session_id: str) -> TaskCounts:
    listed = await tasks.list_tasks(page.services, page.caller, session_id, limit=1)
    return listed.page.counts


async def _make_column(page: PageRequest, session_id: str, state: TaskState) -> Column:
    if state in _NEWEST_FIRST:
        found, counts = await tasks.list_newest(
            page.services, page.caller, session_id, state, limit=ON_BOARD
        )
    else:
        listed = await tasks.list_tasks(
            page.services, page.caller, session_id, state=state, limit=ON_BOARD
        )
        found, counts = listed.page.tasks, listed.page.counts
    return Column(state, getattr(counts, state.value), found)


PAGES = (
    Page("/tasks", show_tasks),
    Page("/tasks/{session_id}/{task_id}", show_task),
    change_stream(EVENTS_PATH, (EventKind.MESSAGE_ADDED, EventKind.SESSION_DELETED), tick_s=30.0),
)
