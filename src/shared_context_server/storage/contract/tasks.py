"""The port for tasks: the work of a session, claimed by one worker at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from shared_context_server.models import (
    Caller,
    JsonObject,
    Message,
    Task,
    TaskOutcome,
    TaskState,
)
from shared_context_server.storage.contract.sessions import SessionGuard

MAX_UNFINISHED_TASKS = 10_000
"""In one session: ready, blocked and claimed ones."""

MAX_DEPENDENTS = 1000
"""Tasks that may depend on one and the same task: as many may become ready in one write."""


class NewTask(NamedTuple):
    """A task to be added. `depends_on`: ids of tasks of the same session, each once. `fingerprint`
    identifies the content of an idempotent call."""

    session_id: str
    creator: Caller
    title: str
    body: str
    priority: int
    assignee: str | None
    depends_on: tuple[int, ...]
    metadata: JsonObject
    created_at: datetime
    idempotency_key: str | None = None
    fingerprint: str = ""


class Claim(NamedTuple):
    """A claim to be made: of the task `task_id`, or of the first ready one if that is None."""

    session_id: str
    task_id: int | None
    worker: Caller
    ttl: timedelta
    claimed_at: datetime
    idempotency_key: str | None = None
    fingerprint: str = ""


class Finish(NamedTuple):
    """The end of a claim."""

    session_id: str
    task_id: int
    worker: Caller
    fencing_token: int
    outcome: TaskOutcome
    result: JsonValue
    finished_at: datetime
    idempotency_key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class TaskWrite:
    """The task after a write, and the message about it. `duplicate`: the idempotency key was known,
    so nothing was written, and the task is as it is now."""

    task: Task
    message: Message | None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """The numbers of a session's tasks by state. `next_expires_at`: when the first claim runs out."""

    ready: int
    blocked: int
    claimed: int
    done: int
    failed: int
    next_expires_at: datetime | None

    @property
    def total(self) -> int:
        return self.ready + self.blocked + self.claimed + self.done + self.failed


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a claim would find. `next_expires_at`: when the first claim runs out."""

    is_ready: bool
    next_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class ClaimAttempt:
    """The result of `claim`. `task`: the claimed task, None if there is none. `named`: the task that
    was asked for by its id but cannot be claimed now. `counts` and `last_seq` (of the session's log)
    are those after the attempt. `message` is None for a renewal and a repetition."""

    task: Task | None
    counts: TaskCounts
    last_seq: int
    named: Task | None = None
    message: Message | None = None
    is_renewal: bool = False
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks by id. The counts are of the whole session."""

    tasks: list[Task]
    has_more: bool
    counts: TaskCounts


MAX_LINKS = 100
"""Tasks in each direction of a TaskDetail."""


class TaskLink(NamedTuple):
    """A task beside another one. `claimed_by` and `expires_at`: of its claim; None if it has none."""

    id: int
    title: str
    state: TaskState
    claimed_by: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """A task with the first MAX_LINKS tasks that it depends on, and of those that depend on it."""

    task: Task
    depends_on: list[TaskLink]
    dependents: list[TaskLink]


class Tasks(Protocol):
    """The tasks of all sessions.

    Every method that writes appends a public message to the session's log in the same transaction,
    with metadata {"type": "task", "task_id": …, "state": …}; a renewal appends none. An idempotency
    key is treated as in Messages.append. A claim holds the lease `rules.tasks.lease_name(id)` of the
    session, whose fencing tokens only grow; it ends at expires_at without any write.
    """

    async def add(self, new: NewTask, guard: SessionGuard) -> TaskWrite:
        """Add a task with the next id. It is BLOCKED if a dependency is not DONE, else READY.

        Raises TaskNotFound(field="depends_on") for a dependency that does not exist, so there are no
        cycles, and Conflict if the session has MAX_UNFINISHED_TASKS, or a dependency has
        MAX_DEPENDENTS.
        """

    async def claim(self, claim: Claim, guard: SessionGuard) -> ClaimAttempt:
        """Claim one task until claimed_at + ttl, so that nobody else has it meanwhile.

        Without a task_id: of the READY tasks that policy.can_claim grants, the one with the highest
        priority, and the smallest id among those. With one: that task if it is READY or FAILED; if
        the caller's agent id and instance hold it already, the claim is renewed (same token, new
        expiry, which may be earlier). Otherwise nothing is claimed. The cost does not grow with the
        tasks that are finished or claimed; of claims that have run out since the last call, at most
        500 are looked at. Raises TaskNotFound, and PermissionDenied for a named task of another
        assignee.
        """

    async def finish(self, finish: Finish, guard: SessionGuard) -> TaskWrite:
        """End the worker's claim. DONE makes READY what waited for this task alone; what waits for a
        FAILED task stays BLOCKED. RELEASED makes the task READY again.

        Raises TaskNotFound, and LeaseLost unless at finished_at the agent holds the claim with this
        token, under this instance if both name one.
        """

    async def look(self, session_id: str, caller: Caller, *, now: datetime) -> Outlook:
        """Return whether `claim` without a task_id would find a task for the caller, and when that
        may change by itself. Knows of no guard, for callers that have just been let pass."""

    async def get_detail(
        self, session_id: str, task_id: int, *, now: datetime, guard: SessionGuard
    ) -> TaskDetail:
        """Return the task with what stands beside it. Raises TaskNotFound."""

    async def list_tasks(
        self,
        session_id: str,
        *,
        state: TaskState | None,
        assignee: str | None,
        after_id: int,
        limit: int,
        now: datetime,
        guard: SessionGuard,
    ) -> TaskPage:
        """Return the first `limit` tasks after `after_id`, by id, in this state and of this assignee
        if they are given. The cost does not grow with the tasks in other states."""
