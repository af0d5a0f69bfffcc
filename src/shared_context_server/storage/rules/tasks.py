"""Decisions about tasks: in which state they begin, who may claim and finish them, what the log says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import JsonValue

from shared_context_server import policy
from shared_context_server.errors import Conflict, LeaseLost, PermissionDenied, TaskNotFound
from shared_context_server.models import (
    Caller,
    JsonObject,
    Lease,
    Task,
    TaskOutcome,
    TaskState,
    Visibility,
)
from shared_context_server.storage.codec import Row, decode_json
from shared_context_server.storage.contract import (
    Claim,
    Finish,
    NewMessage,
    NewTask,
    TaskCounts,
)
from shared_context_server.storage.contract.tasks import MAX_DEPENDENTS, MAX_UNFINISHED_TASKS
from shared_context_server.storage.rules.idempotency import IdempotentCall

LEASE_PREFIX = "task:"
MAX_RELEASED = 500  # claims that have run out, which one claim makes ready: some milliseconds
TOLD_IDS = 100  # of tasks that became ready, in one message
_TOLD_CHARS = 300  # of a result, in a message

_AGAIN = (
    "Stop working on it: the claim has run out or was ended, and another agent may have the task. "
    "list_tasks shows its state; claim_task claims it again if it is ready."
)


def is_of_task(lease: str) -> bool:
    """Whether the lease of this name in a session is held by claims of a task alone."""
    number = lease.removeprefix(LEASE_PREFIX)
    return number != lease and number.isascii() and number.isdigit()


def find_task_id(lease: Lease) -> int | None:
    """Return the task whose claim holds this lease; None if it is any other lease."""
    if lease.session_id is None or not is_of_task(lease.name):
        return None
    return int(lease.name.removeprefix(LEASE_PREFIX))


def lease_name(task_id: int) -> str:
    """Return the name of the lease that a claim of the task holds."""
    return f"{LEASE_PREFIX}{task_id}"


def find_add_call(new: NewTask) -> IdempotentCall | None:
    return _find_call("add_task", new.session_id, new.creator, new.idempotency_key, new.fingerprint)


def find_claim_call(claim: Claim) -> IdempotentCall | None:
    key = claim.idempotency_key
    return _find_call("claim_task", claim.session_id, claim.worker, key, claim.fingerprint)


def find_finish_call(finish: Finish) -> IdempotentCall | None:
    key = finish.idempotency_key
    return _find_call("finish_task", finish.session_id, finish.worker, key, finish.fingerprint)


def _find_call(
    kind: str, session_id: str, caller: Caller, key: str | None, fingerprint: str
) -> IdempotentCall | None:
    if key is None:
        return None
    return IdempotentCall(session_id, caller.agent_id, key, kind, fingerprint)


def task_answer(task: Task) -> JsonObject:
    """Return what is kept of the answer to an idempotent call."""
    return {"task_id": task.id, "fencing_token": task.fencing_token}


def count_tasks(
    stored: Mapping[str, int], run_out: int, next_expires_at: datetime | None
) -> TaskCounts:
    """Return the counts of what callers see. `run_out`: the tasks among the stored claimed ones
    whose claims have run out."""
    return TaskCounts(
        ready=stored.get(TaskState.READY, 0) + run_out,
        blocked=stored.get(TaskState.BLOCKED, 0),
        claimed=stored.get(TaskState.CLAIMED, 0) - run_out,
        done=stored.get(TaskState.DONE, 0),
        failed=stored.get(TaskState.FAILED, 0),
        next_expires_at=next_expires_at,
    )


def require_room(counts: TaskCounts) -> None:
    """Raise Conflict if the session has as many unfinished tasks as it may have."""
    unfinished = counts.ready + counts.blocked + counts.claimed
    if unfinished >= MAX_UNFINISHED_TASKS:
        raise Conflict(
            f"The session has {unfinished} unfinished tasks, which is the limit.",
            limit=MAX_UNFINISHED_TASKS,
            suggestion="Finish some of its tasks first, or use another session.",
        )


def require_dependencies(
    new: NewTask, states: Mapping[int, TaskState], crowded: Sequence[int]
) -> int:
    """Return how many of the dependencies are not done. `states`: those of the dependencies that
    exist. `crowded`: those that have MAX_DEPENDENTS already. Raises TaskNotFound and Conflict."""
    for task_id in new.depends_on:
        if task_id not in states:
            raise TaskNotFound(task_id, field="depends_on")
    if crowded:
        raise Conflict(
            f"{MAX_DEPENDENTS} tasks depend on task {crowded[0]}, which is the limit.",
            field="depends_on",
            task_id=crowded[0],
            limit=MAX_DEPENDENTS,
            suggestion="Add one task that depends on it, and let the others depend on that one.",
        )
    return sum(state is not TaskState.DONE for state in states.values())


def open_dependencies(rows: Sequence[Row], state_at: int, depends_on_at: int) -> list[int]:
    """Return the ids that the blocked tasks among the rows depend on."""
    found: set[int] = set()
    for row in rows:
        if row[state_at] == TaskState.BLOCKED:
            found.update(decode_json(row[depends_on_at]))
    return sorted(found)


def holds_claim(caller: Caller, task: Task) -> bool:
    """Whether the task is claimed by this agent in this thread of its client."""
    return task.state is TaskState.CLAIMED and (task.claimed_by, task.instance) == (
        caller.agent_id,
        caller.instance,
    )


def is_repeated_claim(claim: Claim, task: Task, answer: JsonObject) -> bool:
    """Whether the claim that was answered first with `answer` is still the caller's."""
    return holds_claim(claim.worker, task) and task.fencing_token == answer["fencing_token"]


def can_claim_by_id(caller: Caller, task: Task) -> bool:
    """Whether a caller who names the task gets or keeps it. Raises PermissionDenied if it is another
    agent's. A failed task is tried again in this way."""
    if not policy.can_claim(caller, task):
        raise PermissionDenied(
            f"Task {task.id} is assigned to {task.assignee!r}.",
            field="task_id",
            task_id=task.id,
            suggestion="Claim a task that is assigned to you or to nobody.",
        )
    return task.state in (TaskState.READY, TaskState.FAILED) or holds_claim(caller, task)


def require_claim(finish: Finish, task: Task) -> None:
    """Raise LeaseLost unless the worker holds the claim with its token. A worker that names no
    thread is known by the token alone."""
    worker = finish.worker
    is_same_thread = not (worker.instance and task.instance) or worker.instance == task.instance
    claim = (task.claimed_by, task.fencing_token)
    if claim != (worker.agent_id, finish.fencing_token) or not is_same_thread:
        raise LeaseLost(
            lease_name(task.id),
            holder=task.claimed_by,
            instance=task.instance or "",
            current_token=task.fencing_token,
            suggestion=_AGAIN,
        )


STATES_AFTER = {
    TaskOutcome.DONE: TaskState.DONE,
    TaskOutcome.FAILED: TaskState.FAILED,
    TaskOutcome.RELEASED: TaskState.READY,
}


# What the log says


def tell_added(new: NewTask, task: Task) -> NewMessage:
    waits = f" It waits for {_list(task.depends_on)}." if task.state is TaskState.BLOCKED else ""
    whose = f" for @{task.assignee}" if task.assignee else ""
    return _make_message(
        task,
        new.creator,
        f"Task {task.id} added{whose}: {_end(task.title)}{waits}",
        task.state,
        new.created_at,
    )


def tell_claimed(claim: Claim, task: Task, lost_by: str | None) -> NewMessage:
    """`lost_by`: the agent whose claim ran out before."""
    before = f" The claim of {lost_by} has run out." if lost_by else ""
    return _make_message(
        task,
        claim.worker,
        f"Task {task.id} claimed: {_end(task.title)}{before}",
        TaskState.CLAIMED,
        claim.claimed_at,
    )


def tell_finished(finish: Finish, task: Task, opened: Sequence[int]) -> NewMessage:
    """`opened`: the tasks that became ready."""
    ready = f" Ready now: {_list(opened)}." if opened else ""
    return _make_message(
        task,
        finish.worker,
        f"Task {task.id} {finish.outcome}: {_end(task.title)}{_tell_result(finish.result)}{ready}",
        task.state,
        finish.finished_at,
        {"outcome": finish.outcome.value} | ({"ready": list(opened[:TOLD_IDS])} if opened else {}),
    )


def _make_message(
    task: Task,
    sender: Caller,
    content: str,
    state: TaskState,
    at: datetime,
    more: JsonObject | None = None,
) -> NewMessage:
    return NewMessage(
        session_id=task.session_id,
        sender=sender,
        content=content,
        visibility=Visibility.PUBLIC,
        recipients=(),
        metadata={"type": "task", "task_id": task.id, "state": state.value, **(more or {})},
        parent_message_id=None,
        created_at=at,
    )


def _tell_result(result: JsonValue) -> str:
    if not isinstance(result, str):
        return ""
    shown = result if len(result) <= _TOLD_CHARS else f"{result[:_TOLD_CHARS]}…"
    return f" {_end(shown)}"


def _list(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - TOLD_IDS} more" if len(ids) > TOLD_IDS else ""
    return ", ".join(map(str, ids[:TOLD_IDS])) + more


def _end(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
