"""Tasks on SQLite: add, claim, finish and list them."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from shared_context_server.errors import TaskNotFound
from shared_context_server.models import Caller, Message, Session, Task, TaskOutcome, TaskState
from shared_context_server.storage.codec import (
    TASK,
    TASK_DEPENDS_ON,
    TASK_STATE,
    TASK_TEXT_COLUMNS,
    Row,
    clamp,
    decode_optional_time,
    encode_json,
    encode_time,
    see_task_state,
    to_task,
    to_task_link,
)
from shared_context_server.storage.contract import (
    Claim,
    ClaimAttempt,
    Finish,
    NewMessage,
    NewTask,
    Outlook,
    SessionGuard,
    TaskCounts,
    TaskDetail,
    TaskPage,
    TaskWrite,
)
from shared_context_server.storage.contract.tasks import MAX_DEPENDENTS, MAX_LINKS
from shared_context_server.storage.rules.idempotency import IdempotentCall, check_write
from shared_context_server.storage.rules.messages import to_appended
from shared_context_server.storage.rules.pages import take_page
from shared_context_server.storage.rules.tasks import (
    MAX_RELEASED,
    STATES_AFTER,
    can_claim_by_id,
    count_tasks,
    find_add_call,
    find_claim_call,
    find_finish_call,
    holds_claim,
    is_repeated_claim,
    lease_name,
    open_dependencies,
    require_claim,
    require_dependencies,
    require_room,
    task_answer,
    tell_added,
    tell_claimed,
    tell_finished,
)
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes
from shared_context_server.storage.sqlite.idempotency import find_record, keep_answer
from shared_context_server.storage.sqlite.leases import end_lease, renew_lease, take_lease
from shared_context_server.storage.sqlite.messages import append_to_log
from shared_context_server.storage.sqlite.sessions import use_session

_AT = "session_id = :session_id AND id = :id"

_FIND = f"SELECT {TASK} FROM tasks AS t WHERE t.session_id = :session_id AND t.id = :id"
_LAST_ID = "SELECT coalesce(max(id), 0) FROM tasks WHERE session_id = :session_id"
_STATES = """
    SELECT t.id, t.state, t.expires_at FROM json_each(:ids) AS wanted
    CROSS JOIN tasks AS t ON t.session_id = :session_id AND t.id = wanted.value"""
_CROWDED = """
    SELECT wanted.value FROM json_each(:ids) AS wanted WHERE EXISTS (
        SELECT 1 FROM task_dependents
        WHERE session_id = :session_id AND depends_on = wanted.value LIMIT 1 OFFSET :limit - 1)"""
_ADD = """
    INSERT INTO tasks (
        session_id, id, version, state, priority, assignee, waiting_for, created_by, created_at,
        instance, depends_on, title, metadata, body, result)
    VALUES (
        :session_id, :id, 1, :state, :priority, :assignee, :waiting_for, :created_by, :created_at,
        '', :depends_on, :title, :metadata, :body, 'null')"""

_RUN_OUT = "session_id = :session_id AND state = 'claimed' AND expires_at <= :now"
_FIND_RUN_OUT = f"""
    SELECT session_id, id FROM tasks INDEXED BY tasks_claimed
    WHERE {_RUN_OUT} ORDER BY expires_at LIMIT :limit"""
_MAKE_READY = """
    UPDATE tasks SET state = 'ready', version = version + 1 WHERE session_id = ? AND id = ?"""
_FIRST_OF = """
    SELECT * FROM (
        SELECT id, priority FROM tasks INDEXED BY tasks_ready
        WHERE session_id = :session_id AND assignee = {} AND state = 'ready'
        ORDER BY priority DESC, id LIMIT 1)"""
_FIND_READY = f"""
    {_FIRST_OF.format("''")} UNION ALL {_FIRST_OF.format(":agent_id")}
    ORDER BY priority DESC, id LIMIT 1"""
_RUN_OUT_FOR = f"""
    SELECT 1 FROM tasks INDEXED BY tasks_claimed
    WHERE {_RUN_OUT} AND assignee IN ('', :agent_id) LIMIT 1"""
_LAST_CLAIMED_BY = f"SELECT claimed_by FROM tasks WHERE {_AT}"
_CLAIM = f"""
    UPDATE tasks SET state = 'claimed', claimed_by = :claimed_by, instance = :instance,
        fencing_token = :fencing_token, expires_at = :expires_at, version = version + 1
    WHERE {_AT}"""
_RENEW = f"UPDATE tasks SET expires_at = :expires_at, version = version + 1 WHERE {_AT}"
_FINISH = f"""
    UPDATE tasks SET state = :state, claimed_by = NULL, expires_at = NULL, result = :result,
        finished_by = :finished_by, finished_at = :finished_at, version = version + 1
    WHERE {_AT}"""
_FIND_DEPENDENTS = """
    SELECT session_id, task_id FROM task_dependents
    WHERE session_id = :session_id AND depends_on = :id"""
_OPEN = """
    UPDATE tasks SET state = CASE waiting_for WHEN 1 THEN 'ready' ELSE state END,
        waiting_for = waiting_for - 1, version = version + 1
    WHERE session_id = ? AND id = ? RETURNING id, state"""

_LINK = "t.id, t.title, t.state, t.claimed_by, t.expires_at"
_LIST_DEPENDENCIES = f"""
    SELECT {_LINK} FROM json_each(:ids) AS wanted
    CROSS JOIN tasks AS t ON t.session_id = :session_id AND t.id = wanted.value
    ORDER BY t.id LIMIT :limit"""
_LIST_DEPENDENTS = f"""
    SELECT {_LINK} FROM task_dependents AS d
    CROSS JOIN tasks AS t ON t.session_id = d.session_id AND t.id = d.task_id
    WHERE d.session_id = :session_id AND d.depends_on = :id ORDER BY d.task_id LIMIT :limit"""

_COUNT = "SELECT state, count FROM task_counts WHERE session_id = :session_id"
_COUNT_RUN_OUT = f"SELECT count(*) FROM tasks INDEXED BY tasks_claimed WHERE {_RUN_OUT}"
_NEXT_EXPIRY = """
    SELECT min(expires_at) FROM tasks INDEXED BY tasks_claimed
    WHERE session_id = :session_id AND state = 'claimed' AND expires_at > :now"""

_ANY = "id > :after_id"
_SEEN_AS = {
    TaskState.READY: (
        f"state = 'ready' AND {_ANY}",
        f"state = 'claimed' AND expires_at <= :now AND {_ANY}",
    ),
    TaskState.CLAIMED: (f"state = 'claimed' AND expires_at > :now AND {_ANY}",),
} | {
    state: (f"state = '{state}' AND {_ANY}",)
    for state in (TaskState.BLOCKED, TaskState.DONE, TaskState.FAILED)
}


def _list_ids(conditions: Sequence[str], index: str, also: str = "") -> str:
    parts = [
        f"SELECT id FROM tasks {index} WHERE session_id = :session_id {also} AND {condition}"
        " ORDER BY id LIMIT :limit"
        for condition in conditions
    ]
    if len(parts) == 1:
        return parts[0]
    listed = " UNION ALL ".join(f"SELECT * FROM ({part})" for part in parts)
    return f"{listed} ORDER BY id LIMIT :limit"


_OF_ASSIGNEE = "AND assignee = :assignee AND assignee <> ''"
_LISTS: dict[tuple[TaskState | None, bool], str] = {
    (None, False): _list_ids([_ANY], ""),
    (None, True): _list_ids(
        [f"state = '{state}' AND {_ANY}" for state in TaskState],
        "INDEXED BY tasks_by_assignee",
        _OF_ASSIGNEE,
    ),
}
for _state, _conditions in _SEEN_AS.items():
    _LISTS[_state, False] = _list_ids(_conditions, "INDEXED BY tasks_by_state")
    _LISTS[_state, True] = _list_ids(_conditions, "INDEXED BY tasks_by_assignee", _OF_ASSIGNEE)


class Tasks(Subject):
    """Tasks. See contract/tasks.py."""

    @writes
    def add(self, connection: sqlite3.Connection, new: NewTask, guard: SessionGuard) -> TaskWrite:
        session = use_session(connection, new.session_id)
        call = find_add_call(new)
        repeated = _find_repeated(connection, call, session, guard)
        if repeated is not None:
            task = _get(connection, session.id, repeated["task_id"], new.created_at)
            return TaskWrite(task, None, duplicate=True)
        require_room(_count(connection, session.id, new.created_at))
        parameters: dict[str, Any] = {
            "session_id": session.id,
            "ids": encode_json([*map(clamp, new.depends_on)]),
            "limit": MAX_DEPENDENTS,
        }
        crowded = [row[0] for row in connection.execute(_CROWDED, parameters)]
        states = _find_states(connection, session.id, new.depends_on, new.created_at)
        waiting_for = require_dependencies(new, states, crowded)
        (last_id,) = connection.execute(_LAST_ID, parameters).fetchone()
        connection.execute(
            _ADD,
            {
                "session_id": session.id,
                "id": last_id + 1,
                "state": TaskState.BLOCKED if waiting_for else TaskState.READY,
                "priority": new.priority,
                "assignee": new.assignee or "",
                "waiting_for": waiting_for,
                "created_by": new.creator.agent_id,
                "created_at": encode_time(new.created_at),
                "depends_on": encode_json([*new.depends_on]),
                "title": new.title,
                "metadata": encode_json(new.metadata),
                "body": new.body,
            },
        )
        task = _get(connection, session.id, last_id + 1, new.created_at)
        _keep(connection, call, task, new.created_at)
        return TaskWrite(task, _tell(connection, session, tell_added(new, task)))

    @writes
    def claim(
        self, connection: sqlite3.Connection, claim: Claim, guard: SessionGuard
    ) -> ClaimAttempt:
        session = use_session(connection, claim.session_id)
        call = find_claim_call(claim)
        now = claim.claimed_at
        repeated = _find_repeated(connection, call, session, guard)
        if repeated is not None:
            task = _get(connection, session.id, repeated["task_id"], now)
            is_held = is_repeated_claim(claim, task, repeated)
            counts = _count(connection, session.id, now)
            return ClaimAttempt(
                task if is_held else None,
                counts,
                session.last_seq,
                named=None if is_held else task,
                duplicate=True,
            )
        task_id = claim.task_id
        if task_id is not None:
            named = _get(connection, session.id, task_id, now)
            if not can_claim_by_id(claim.worker, named):
                counts = _count(connection, session.id, now)
                return ClaimAttempt(None, counts, session.last_seq, named=named)
            if holds_claim(claim.worker, named):
                task = _renew(connection, claim, named)
                _keep(connection, call, task, now)
                counts = _count(connection, session.id, now)
                return ClaimAttempt(task, counts, session.last_seq, is_renewal=True)
        else:
            _make_ready(connection, session.id, now)
            found = connection.execute(
                _FIND_READY, {"session_id": session.id, "agent_id": claim.worker.agent_id}
            ).fetchone()
            if found is None:
                counts = _count(connection, session.id, now)
                return ClaimAttempt(None, counts, session.last_seq)
            task_id = found[0]
        task, lost_by = _take(connection, claim, task_id)
        _keep(connection, call, task, now)
        message = _tell(connection, session, tell_claimed(claim, task, lost_by))
        return ClaimAttempt(task, _count(connection, session.id, now), message.seq, message=message)

    @writes
    def finish(
        self, connection: sqlite3.Connection, finish: Finish, guard: SessionGuard
    ) -> TaskWrite:
        session = use_session(connection, finish.session_id)
        call = find_finish_call(finish)
        now = finish.finished_at
        repeated = _find_repeated(connection, call, session, guard)
        task = _get(connection, session.id, finish.task_id, now)
        if repeated is not None:
            return TaskWrite(task, None, duplicate=True)
        require_claim(finish, task)
        connection.execute(
            _FINISH,
            {
                "session_id": session.id,
                "id": task.id,
                "state": STATES_AFTER[finish.outcome],
                "result": encode_json(finish.result),
                "finished_by": finish.worker.agent_id,
                "finished_at": encode_time(now),
            },
        )
        end_lease(connection, session.id, lease_name(task.id))
        opened = (
            _open_dependents(connection, session.id, task.id)
            if finish.outcome is TaskOutcome.DONE
            else []
        )
        task = _get(connection, session.id, task.id, now)
        _keep(connection, call, task, now)
        return TaskWrite(task, _tell(connection, session, tell_finished(finish, task, opened)))

    @reads
    def look(
        self, connection: sqlite3.Connection, session_id: str, caller: Caller, *, now: datetime
    ) -> Outlook:
        parameters = {
            "session_id": session_id,
            "agent_id": caller.agent_id,
            "now": encode_time(now),
        }
        is_ready = any(
            connection.execute(statement, parameters).fetchone() is not None
            for statement in (_FIND_READY, _RUN_OUT_FOR)
        )
        (next_expiry,) = connection.execute(_NEXT_EXPIRY, parameters).fetchone()
        return Outlook(is_ready, decode_optional_time(next_expiry))

    @reads
    def get_detail(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        task_id: int,
        *,
        now: datetime,
        guard: SessionGuard,
    ) -> TaskDetail:
        use_session(connection, session_id, guard)
        task = _get(connection, session_id, task_id, now)
        parameters = {
            "session_id": session_id,
            "id": task_id,
            "ids": encode_json([*task.depends_on]),
            "limit": MAX_LINKS,
        }
        before = connection.execute(_LIST_DEPENDENCIES, parameters)
        behind = connection.execute(_LIST_DEPENDENTS, parameters)
        return TaskDetail(
            task,
            [to_task_link(row, now) for row in before],
            [to_task_link(row, now) for row in behind],
        )

    @reads
    def list_tasks(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        *,
        state: TaskState | None,
        assignee: str | None,
        after_id: int,
        limit: int,
        now: datetime,
        guard: SessionGuard,
    ) -> TaskPage:
        use_session(connection, session_id, guard)
        parameters = {
            "session_id": session_id,
            "assignee": assignee,
            "after_id": clamp(after_id),
            "limit": limit + 1,
            "now": encode_time(now),
        }
        ids = connection.execute(_LISTS[state, assignee is not None], parameters).fetchall()
        # One by one, so that what does not fit on the page is not read.
        found = (_find_row(connection, session_id, task_id) for (task_id,) in ids)
        rows, has_more = take_page(found, limit, TASK_TEXT_COLUMNS)
        tasks = _to_tasks(connection, session_id, rows, now)
        return TaskPage(tasks, has_more, _count(connection, session_id, now))


def _find_repeated(
    connection: sqlite3.Connection,
    call: IdempotentCall | None,
    session: Session,
    guard: SessionGuard,
) -> dict[str, Any] | None:
    """Return the kept answer if this call is a repetition; None once the guard has allowed it."""
    record = None if call is None else find_record(connection, call)
    return check_write(call, record, session, guard)


def _keep(
    connection: sqlite3.Connection, call: IdempotentCall | None, task: Task, at: datetime
) -> None:
    if call is not None:
        keep_answer(connection, call, task_answer(task), at)


def _tell(connection: sqlite3.Connection, session: Session, new: NewMessage) -> Message:
    return to_appended(new, append_to_log(connection, new, session.last_seq + 1))


def _find_row(connection: sqlite3.Connection, session_id: str, task_id: int) -> Row:
    parameters = {"session_id": session_id, "id": clamp(task_id)}
    row: Row | None = connection.execute(_FIND, parameters).fetchone()
    if row is None:
        raise TaskNotFound(task_id)
    return row


def _get(connection: sqlite3.Connection, session_id: str, task_id: int, now: datetime) -> Task:
    row = _find_row(connection, session_id, task_id)
    return _to_tasks(connection, session_id, [row], now)[0]


def _to_tasks(
    connection: sqlite3.Connection, session_id: str, rows: Sequence[Row], now: datetime
) -> list[Task]:
    wanted = open_dependencies(rows, TASK_STATE, TASK_DEPENDS_ON)
    states = _find_states(connection, session_id, wanted, now) if wanted else {}
    return [to_task(row, now, states) for row in rows]


def _find_states(
    connection: sqlite3.Connection, session_id: str, ids: Sequence[int], now: datetime
) -> dict[int, TaskState]:
    parameters = {"session_id": session_id, "ids": encode_json([*map(clamp, ids)])}
    return {
        task_id: see_task_state(state, expires_at, now)
        for task_id, state, expires_at in connection.execute(_STATES, parameters)
    }


def _count(connection: sqlite3.Connection, session_id: str, now: datetime) -> TaskCounts:
    parameters = {"session_id": session_id, "now": encode_time(now)}
    stored = dict(connection.execute(_COUNT, parameters).fetchall())
    (run_out,) = connection.execute(_COUNT_RUN_OUT, parameters).fetchone()
    (next_expiry,) = connection.execute(_NEXT_EXPIRY, parameters).fetchone()
    return count_tasks(stored, run_out, decode_optional_time(next_expiry))


def _make_ready(connection: sqlite3.Connection, session_id: str, now: datetime) -> None:
    """Change tasks whose claims have run out, so that they are found among the ready ones."""
    found = connection.execute(
        _FIND_RUN_OUT,
        {"session_id": session_id, "now": encode_time(now), "limit": MAX_RELEASED},
    ).fetchall()
    if found:
        connection.executemany(_MAKE_READY, found)


def _take(connection: sqlite3.Connection, claim: Claim, task_id: int) -> tuple[Task, str | None]:
    """Give the task to the worker. Return it, and whose claim of it has run out."""
    (lost_by,) = connection.execute(
        _LAST_CLAIMED_BY, {"session_id": claim.session_id, "id": task_id}
    ).fetchone()
    expires_at = claim.claimed_at + claim.ttl
    token = take_lease(
        connection,
        claim.session_id,
        lease_name(task_id),
        claim.worker,
        now=claim.claimed_at,
        expires_at=expires_at,
    )
    connection.execute(
        _CLAIM,
        {
            "session_id": claim.session_id,
            "id": task_id,
            "claimed_by": claim.worker.agent_id,
            "instance": claim.worker.instance,
            "fencing_token": token,
            "expires_at": encode_time(expires_at),
        },
    )
    return _get(connection, claim.session_id, task_id, claim.claimed_at), lost_by


def _renew(connection: sqlite3.Connection, claim: Claim, task: Task) -> Task:
    expires_at = claim.claimed_at + claim.ttl
    renew_lease(connection, claim.session_id, lease_name(task.id), expires_at)
    connection.execute(
        _RENEW,
        {
            "session_id": claim.session_id,
            "id": task.id,
            "expires_at": encode_time(expires_at),
        },
    )
    return _get(connection, claim.session_id, task.id, claim.claimed_at)


def _open_dependents(connection: sqlite3.Connection, session_id: str, task_id: int) -> list[int]:
    """Note that the task is done in those that wait for it. Return the ids of those ready now."""
    found = connection.execute(_FIND_DEPENDENTS, {"session_id": session_id, "id": task_id})
    opened = []
    for dependent in found.fetchall():
        changed_id, state = connection.execute(_OPEN, dependent).fetchone()
        if state == TaskState.READY:
            opened.append(changed_id)
    return sorted(opened)
