"""Tasks on PostgreSQL: add, claim, finish and list them."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    decode_json,
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
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement, within_bytes
from shared_context_server.storage.postgres.engine.work import (
    Subject,
    reads,
    reads_snapshot,
    writes,
)
from shared_context_server.storage.postgres.idempotency import find_record, keep_answer
from shared_context_server.storage.postgres.leases import end_lease, renew_lease, take_lease
from shared_context_server.storage.postgres.messages import append_to_log
from shared_context_server.storage.postgres.sessions import use_session
from shared_context_server.storage.rules.idempotency import IdempotentCall, check_write
from shared_context_server.storage.rules.messages import to_appended
from shared_context_server.storage.rules.pages import page_budget, take_page
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

_AT = "session_id = :session_id AND id = :id"
_COLUMNS = TASK.replace("t.", "")

_FIND = Statement(f"SELECT {TASK} FROM tasks AS t WHERE t.session_id = :session_id AND t.id = :id")
_STATES = Statement("""
    SELECT id, state, expires_at FROM tasks
    WHERE session_id = :session_id AND id = ANY(:ids::bigint[])""")
_CROWDED = Statement("""
    SELECT wanted.id FROM unnest(:ids::bigint[]) AS wanted (id) WHERE EXISTS (
        SELECT 1 FROM task_dependents
        WHERE session_id = :session_id AND depends_on = wanted.id LIMIT 1 OFFSET :others)""")
_ADD = Statement(f"""
    INSERT INTO tasks (
        session_id, id, version, state, priority, assignee, waiting_for, created_by, created_at,
        instance, depends_on, title, metadata, body, result)
    VALUES (
        :session_id,
        (SELECT coalesce(max(id), 0) + 1 FROM tasks WHERE session_id = :session_id), 1, :state, :priority, :assignee, :waiting_for, :created_by, :created_at,
        '', :depends_on, :title, :metadata, :body, 'null')
    RETURNING {_COLUMNS}""")

_RUN_OUT = "session_id = :session_id AND state = 'claimed' AND expires_at <= :now"
_MAKE_READY = Statement(f"""
    UPDATE tasks SET state = 'ready', version = version + 1
    WHERE session_id = :session_id AND id = ANY(ARRAY(
        SELECT id FROM tasks WHERE {_RUN_OUT} ORDER BY expires_at LIMIT :limit))""")
_FIRST_OF = """
    (SELECT id, priority FROM tasks
     WHERE session_id = :session_id AND assignee = {} AND state = 'ready'
     ORDER BY priority DESC, id LIMIT 1)"""
_FIND_READY = Statement(f"""
    {_FIRST_OF.format("''")} UNION ALL {_FIRST_OF.format(":agent_id")}
    ORDER BY priority DESC, id LIMIT 1""")
_RUN_OUT_FOR = Statement(f"""
    SELECT 1 FROM tasks WHERE {_RUN_OUT} AND assignee IN ('', :agent_id) LIMIT 1""")
_CLAIM = Statement(f"""
    WITH before AS (SELECT claimed_by FROM tasks WHERE {_AT})
    UPDATE tasks SET state = 'claimed', claimed_by = :claimed_by, instance = :instance,
        fencing_token = :fencing_token, expires_at = :expires_at, version = version + 1
    WHERE {_AT} RETURNING {_COLUMNS}, (SELECT claimed_by FROM before) AS lost_by""")
_RENEW = Statement(f"""
    UPDATE tasks SET expires_at = :expires_at, version = version + 1 WHERE {_AT} RETURNING {_COLUMNS}""")
_FINISH = Statement(f"""
    UPDATE tasks SET state = :state, claimed_by = NULL, expires_at = NULL, result = :result,
        finished_by = :finished_by, finished_at = :finished_at, version = version + 1
    WHERE {_AT} RETURNING {_COLUMNS}""")
_OPEN = Statement("""
    UPDATE tasks SET state = CASE waiting_for WHEN 1 THEN 'ready' ELSE state END,
        waiting_for = waiting_for - 1, version = version + 1
    WHERE session_id = :session_id AND id = ANY(ARRAY(
        SELECT task_id FROM task_dependents WHERE session_id = :session_id AND depends_on = :id))
    RETURNING id, state""")

_LINK = "t.id, t.title, t.state, t.claimed_by, t.expires_at"
_LIST_DEPENDENCIES = Statement(f"""
    SELECT {_LINK} FROM tasks AS t
    WHERE t.session_id = :session_id AND t.id = ANY(:ids::bigint[]) ORDER BY t.id LIMIT :limit""")
_LIST_DEPENDENTS = Statement(f"""
    SELECT {_LINK} FROM task_dependents AS d
    JOIN tasks AS t ON t.session_id = d.session_id AND t.id = d.task_id
    WHERE d.session_id = :session_id AND d.depends_on = :id ORDER BY d.task_id LIMIT :limit""")

_COUNT = Statement(f"""
    SELECT
        (SELECT json_object_agg(state, count) FROM task_counts WHERE session_id = :session_id)::text,
        (SELECT count(*) FROM tasks WHERE {_RUN_OUT}),
        (SELECT min(expires_at) FROM tasks
         WHERE session_id = :session_id AND state = 'claimed' AND expires_at > :now)""")
_NEXT_EXPIRY = Statement("""
    SELECT min(expires_at) FROM tasks
    WHERE session_id = :session_id AND state = 'claimed' AND expires_at > :now""")

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


def _list(conditions: Iterable[str], also: str = "") -> Statement:
    ids = " UNION ALL ".join(
        f"(SELECT id FROM tasks WHERE session_id = :session_id {also} AND {condition}"
        " ORDER BY id LIMIT :limit)"
        for condition in conditions
    )
    rows = f"""
        SELECT {TASK} FROM tasks AS t
        WHERE t.session_id = :session_id AND t.id = ANY(ARRAY(
            SELECT id FROM ({ids}) AS found ORDER BY id LIMIT :limit))"""
    return Statement(within_bytes(TASK, rows, _TEXT_COLUMNS, "id"))


_TEXT_COLUMNS = ("depends_on", "title", "metadata", "body", "result")
_OF_ASSIGNEE = "AND assignee = :assignee AND assignee <> ''"
_LISTS: dict[tuple[TaskState | None, bool], Statement] = {
    (None, False): _list([_ANY]),
    (None, True): _list([f"state = '{state}' AND {_ANY}" for state in TaskState], _OF_ASSIGNEE),
}
for _state, _conditions in _SEEN_AS.items():
    _LISTS[_state, False] = _list(_conditions)
    _LISTS[_state, True] = _list(_conditions, _OF_ASSIGNEE)


class Tasks(Subject):
    """Tasks. See contract/tasks.py."""

    @writes
    async def add(self, connection: Connection, new: NewTask, guard: SessionGuard) -> TaskWrite:
        session = await use_session(connection, new.session_id, lock="NO KEY UPDATE")
        call = find_add_call(new)
        repeated = await _find_repeated(connection, call, session, guard)
        if repeated is not None:
            task = await _get(connection, session.id, repeated["task_id"], new.created_at)
            return TaskWrite(task, None, duplicate=True)
        require_room(await _count(connection, session.id, new.created_at))
        crowded, states = await _find_dependencies(connection, new) if new.depends_on else ([], {})
        waiting_for = require_dependencies(new, states, crowded)
        row = await connection.fetchrow(
            *_ADD(
                session_id=session.id,
                state=TaskState.BLOCKED if waiting_for else TaskState.READY,
                priority=new.priority,
                assignee=new.assignee or "",
                waiting_for=waiting_for,
                created_by=new.creator.agent_id,
                created_at=encode_time(new.created_at),
                depends_on=encode_json([*new.depends_on]),
                title=new.title,
                metadata=encode_json(new.metadata),
                body=new.body,
            )
        )
        task = _see(row, new.created_at, states)
        await _keep(connection, call, task, new.created_at)
        return TaskWrite(task, await _tell(connection, session, tell_added(new, task)))

    @writes
    async def claim(
        self, connection: Connection, claim: Claim, guard: SessionGuard
    ) -> ClaimAttempt:
        session = await use_session(connection, claim.session_id, lock="NO KEY UPDATE")
        call = find_claim_call(claim)
        now = claim.claimed_at
        repeated = await _find_repeated(connection, call, session, guard)
        if repeated is not None:
            task = await _get(connection, session.id, repeated["task_id"], now)
            is_held = is_repeated_claim(claim, task, repeated)
            counts = await _count(connection, session.id, now)
            return ClaimAttempt(
                task if is_held else None,
                counts,
                session.last_seq,
                named=None if is_held else task,
                duplicate=True,
            )
        task_id = claim.task_id
        if task_id is not None:
            named = await _get(connection, session.id, task_id, now)
            if not can_claim_by_id(claim.worker, named):
                counts = await _count(connection, session.id, now)
                return ClaimAttempt(None, counts, session.last_seq, named=named)
            if holds_claim(claim.worker, named):
                task = await _renew(connection, claim, named)
                await _keep(connection, call, task, now)
                counts = await _count(connection, session.id, now)
                return ClaimAttempt(task, counts, session.last_seq, is_renewal=True)
        else:
            await _make_ready(connection, session.id, now)
            found = await connection.fetchrow(
                *_FIND_READY(session_id=session.id, agent_id=claim.worker.agent_id)
            )
            if found is None:
                counts = await _count(connection, session.id, now)
                return ClaimAttempt(None, counts, session.last_seq)
            task_id = found[0]
        task, lost_by = await _take(connection, claim, task_id)
        await _keep(connection, call, task, now)
        message = await _tell(connection, session, tell_claimed(claim, task, lost_by))
        return ClaimAttempt(
            task, await _count(connection, session.id, now), message.seq, message=message
        )

    @writes
    async def finish(
        self, connection: Connection, finish: Finish, guard: SessionGuard
    ) -> TaskWrite:
        session = await use_session(connection, finish.session_id, lock="NO KEY UPDATE")
        call = find_finish_call(finish)
        now = finish.finished_at
        repeated = await _find_repeated(connection, call, session, guard)
        task = await _get(connection, session.id, finish.task_id, now)
        if repeated is not None:
            return TaskWrite(task, None, duplicate=True)
        require_claim(finish, task)
        row = await connection.fetchrow(
            *_FINISH(
                session_id=session.id,
                id=task.id,
                state=STATES_AFTER[finish.outcome],
                result=encode_json(finish.result),
                finished_by=finish.worker.agent_id,
                finished_at=encode_time(now),
            )
        )
        await end_lease(connection, session.id, lease_name(task.id))
        opened = (
            await _open_dependents(connection, session.id, task.id)
            if finish.outcome is TaskOutcome.DONE
            else []
        )
        task = _see(row, now)
        await _keep(connection, call, task, now)
        return TaskWrite(
            task, await _tell(connection, session, tell_finished(finish, task, opened))
        )

    @reads
    async def look(
        self, connection: Connection, session_id: str, caller: Caller, *, now: datetime
    ) -> Outlook:
        parameters = {
            "session_id": session_id,
            "agent_id": caller.agent_id,
            "now": encode_time(now),
        }
        next_expiry = await connection.fetchval(*_NEXT_EXPIRY(**parameters))
        is_ready = False
        for statement in (_FIND_READY, _RUN_OUT_FOR):
            is_ready = is_ready or await connection.fetchrow(*statement(**parameters)) is not None
        return Outlook(is_ready, decode_optional_time(next_expiry))

    @reads_snapshot
    async def get_detail(
        self,
        connection: Connection,
        session_id: str,
        task_id: int,
        *,
        now: datetime,
        guard: SessionGuard,
    ) -> TaskDetail:
        await use_session(connection, session_id, guard)
        task = await _get(connection, session_id, task_id, now)
        parameters = {
            "session_id": session_id,
            "id": task.id,
            "ids": [*task.depends_on],
            "limit": MAX_LINKS,
        }
        before = await connection.fetch(*_LIST_DEPENDENCIES(**parameters))
        behind = await connection.fetch(*_LIST_DEPENDENTS(**parameters))
        return TaskDetail(
            task,
            [to_task_link(row, now) for row in before],
            [to_task_link(row, now) for row in behind],
        )

    @reads_snapshot
    async def list_tasks(
        self,
        connection: Connection,
        session_id: str,
        *,
        state: TaskState | None,
        assignee: str | None,
        after_id: int,
        limit: int,
        now: datetime,
        guard: SessionGuard,
    ) -> TaskPage:
        await use_session(connection, session_id, guard)
        parameters = {
            "session_id": session_id,
            "assignee": assignee,
            "after_id": clamp(after_id),
            "limit": limit + 1,
            "max_bytes": page_budget(limit),
            "now": encode_time(now),
        }
        statement = _LISTS[state, assignee is not None]
        found = await connection.fetch(*statement(**parameters))
        rows, has_more = take_page(found, limit, TASK_TEXT_COLUMNS)
        tasks = await _to_tasks(connection, session_id, rows, now)
        return TaskPage(tasks, has_more, await _count(connection, session_id, now))


async def _find_repeated(
    connection: Connection,
    call: IdempotentCall | None,
    session: Session,
    guard: SessionGuard,
) -> dict[str, Any] | None:
    """Return the kept answer if this call is a repetition; None once the guard has allowed it."""
    record = None if call is None else await find_record(connection, call)
    return check_write(call, record, session, guard)


async def _keep(
    connection: Connection, call: IdempotentCall | None, task: Task, at: datetime
) -> None:
    if call is not None:
        await keep_answer(connection, call, task_answer(task), at)


async def _tell(connection: Connection, session: Session, new: NewMessage) -> Message:
    return to_appended(new, await append_to_log(connection, new, session.last_seq + 1))


def _see(row: Row | None, now: datetime, states: Mapping[int, TaskState] | None = None) -> Task:
    """Return the task that a statement has written. `states`: those of what it depends on, if it is
    blocked."""
    assert row is not None  # because the session is locked
    return to_task(row, now, states or {})


async def _find_dependencies(
    connection: Connection, new: NewTask
) -> tuple[list[int], dict[int, TaskState]]:
    """Return the dependencies that have too many dependents already, and the states of all."""
    ids = [*map(clamp, new.depends_on)]
    crowded = await connection.fetch(
        *_CROWDED(session_id=new.session_id, ids=ids, others=MAX_DEPENDENTS - 1)
    )
    states = await _find_states(connection, new.session_id, ids, new.created_at)
    return [row[0] for row in crowded], states


async def _find_row(connection: Connection, session_id: str, task_id: int) -> Row:
    row: Row | None = await connection.fetchrow(*_FIND(session_id=session_id, id=clamp(task_id)))
    if row is None:
        raise TaskNotFound(task_id)
    return row


async def _get(connection: Connection, session_id: str, task_id: int, now: datetime) -> Task:
    row = await _find_row(connection, session_id, task_id)
    return (await _to_tasks(connection, session_id, [row], now))[0]


async def _to_tasks(
    connection: Connection, session_id: str, rows: Sequence[Row], now: datetime
) -> list[Task]:
    wanted = open_dependencies(rows, TASK_STATE, TASK_DEPENDS_ON)
    states = await _find_states(connection, session_id, wanted, now) if wanted else {}
    return [to_task(row, now, states) for row in rows]


async def _find_states(
    connection: Connection, session_id: str, ids: Sequence[int], now: datetime
) -> dict[int, TaskState]:
    rows = await connection.fetch(*_STATES(session_id=session_id, ids=[*map(clamp, ids)]))
    return {task_id: see_task_state(state, expires_at, now) for task_id, state, expires_at in rows}


async def _count(connection: Connection, session_id: str, now: datetime) -> TaskCounts:
    row = await connection.fetchrow(*_COUNT(session_id=session_id, now=encode_time(now)))
    assert row is not None
    stored, run_out, next_expiry = row
    return count_tasks(decode_json(stored or "{}"), run_out, decode_optional_time(next_expiry))


async def _make_ready(connection: Connection, session_id: str, now: datetime) -> None:
    """Change tasks whose claims have run out, so that they are found among the ready ones."""
    await connection.execute(
        *_MAKE_READY(session_id=session_id, now=encode_time(now), limit=MAX_RELEASED)
    )


async def _take(connection: Connection, claim: Claim, task_id: int) -> tuple[Task, str | None]:
    """Give the task to the worker. Return it, and whose claim of it has run out."""
    expires_at = claim.claimed_at + claim.ttl
    token = await take_lease(
        connection,
        claim.session_id,
        lease_name(task_id),
        claim.worker,
        now=claim.claimed_at,
        expires_at=expires_at,
    )
    row = await connection.fetchrow(
        *_CLAIM(
            session_id=claim.session_id,
            id=task_id,
            claimed_by=claim.worker.agent_id,
            instance=claim.worker.instance,
            fencing_token=token,
            expires_at=encode_time(expires_at),
        )
    )
    task = _see(row, claim.claimed_at)
    assert row is not None
    return task, row["lost_by"]


async def _renew(connection: Connection, claim: Claim, task: Task) -> Task:
    expires_at = claim.claimed_at + claim.ttl
    await renew_lease(connection, claim.session_id, lease_name(task.id), expires_at)
    row = await connection.fetchrow(
        *_RENEW(session_id=claim.session_id, id=task.id, expires_at=encode_time(expires_at))
    )
    return _see(row, claim.claimed_at)


async def _open_dependents(connection: Connection, session_id: str, task_id: int) -> list[int]:
    """Note that the task is done in those that wait for it. Return the ids of those ready now."""
    changed = await connection.fetch(*_OPEN(session_id=session_id, id=task_id))
    return sorted(row["id"] for row in changed if row["state"] == TaskState.READY)
