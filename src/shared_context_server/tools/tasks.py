"""Tools for tasks."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from shared_context_server.models import AgentId, Permission, Task, TaskOutcome, TaskState
from shared_context_server.services import tasks
from shared_context_server.services.context import Services
from shared_context_server.storage.contract import ClaimAttempt, TaskCounts
from shared_context_server.tools.arguments import (
    AnyJson,
    Arguments,
    Content,
    Cursor,
    FencingToken,
    IdempotencyKey,
    Integer,
    JsonArgument,
    JsonMembers,
    Metadata,
    Number,
    Result,
    SessionId,
    Time,
)
from shared_context_server.tools.leases import ONE_DAY_S
from shared_context_server.tools.registry import ADDS, READS, Call, Tool

MAX_PRIORITY = 1000
MAX_DEPENDENCIES = 100

TaskId = Annotated[Integer, Field(ge=1, le=2**63 - 1)]


class AddTask(Arguments):
    session_id: SessionId
    title: Annotated[str, Field(min_length=1, max_length=500)]
    body: Content | None = None
    depends_on: Annotated[
        list[TaskId],
        Field(max_length=MAX_DEPENDENCIES, description="Tasks that must be done first."),
    ] = Field(default_factory=list)
    priority: Annotated[Integer, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0
    assignee: Annotated[AgentId | None, Field(description="Only this agent may claim it.")] = None
    metadata: Metadata = Field(default_factory=dict)
    idempotency_key: IdempotencyKey | None = None


class ClaimTask(Arguments):
    session_id: SessionId
    task_id: Annotated[
        TaskId | None,
        Field(description="Default: the first ready one. Name a failed one to retry."),
    ] = None
    ttl_seconds: Annotated[Integer, Field(ge=1, le=ONE_DAY_S)] = 600
    wait_seconds: Annotated[
        Number, Field(ge=0, le=120, description="How long to wait for a task.")
    ] = 0
    idempotency_key: IdempotencyKey | None = None


class FinishTask(Arguments):
    session_id: SessionId
    task_id: TaskId
    fencing_token: FencingToken
    outcome: TaskOutcome = TaskOutcome.DONE
    result: JsonArgument = None
    idempotency_key: IdempotencyKey | None = None


class ListTasks(Arguments):
    session_id: SessionId
    state: TaskState | None = None
    assignee: AgentId | None = None
    limit: Annotated[Integer, Field(ge=1, le=200)] = tasks.DEFAULT_LISTED
    cursor: Cursor | None = None


class BlockerItem(BaseModel):
    task_id: int
    state: TaskState


class TaskItem(BaseModel):
    """A task as every surface shows it."""

    id: int
    session_id: str
    title: str
    body: str
    state: TaskState
    priority: int
    assignee: str | None
    depends_on: list[int]
    blocked_by: list[BlockerItem]
    metadata: JsonMembers
    created_by: str
    created_at: Time
    claimed_by: str | None
    instance: str
    fencing_token: int | None
    expires_at: Time | None
    result: AnyJson
    finished_by: str | None
    finished_at: Time | None

    @classmethod
    def of(cls, task: Task) -> TaskItem:
        return cls(
            id=task.id,
            session_id=task.session_id,
            title=task.title,
            body=task.body,
            state=task.state,
            priority=task.priority,
            assignee=task.assignee,
            depends_on=list(task.depends_on),
            blocked_by=[
                BlockerItem(task_id=one.task_id, state=one.state) for one in task.blocked_by
            ],
            metadata=task.metadata,
            created_by=task.created_by,
            created_at=task.created_at,
            claimed_by=task.claimed_by,
            instance=task.instance,
            fencing_token=task.fencing_token,
            expires_at=task.expires_at,
            result=task.result,
            finished_by=task.finished_by,
            finished_at=task.finished_at,
        )


class TaskCountsItem(BaseModel):
    """How many tasks of a session are in each state."""

    ready: int
    blocked: int
    claimed: int
    done: int
    failed: int

    @classmethod
    def of(cls, counts: TaskCounts) -> TaskCountsItem:
        return cls(
            ready=counts.ready,
            blocked=counts.blocked,
            claimed=counts.claimed,
            done=counts.done,
            failed=counts.failed,
        )


class TaskChanged(Result):
    task: TaskItem
    duplicate: bool


class TaskClaimed(Result):
    task: TaskItem | None
    renewed: bool
    duplicate: bool
    hint: str | None
    counts: TaskCountsItem
    next_expires_at: Time | None


class TaskList(Result):
    tasks: list[TaskItem]
    count: int
    counts: TaskCountsItem
    next_expires_at: Time | None
    next_cursor: str | None


def task_list(listed: tasks.ListedTasks) -> TaskList:
    """Return a page of tasks as every surface shows it."""
    page = listed.page
    return TaskList(
        tasks=[TaskItem.of(task) for task in page.tasks],
        count=len(page.tasks),
        counts=TaskCountsItem.of(page.counts),
        next_expires_at=page.counts.next_expires_at,
        next_cursor=listed.next_cursor,
    )


def explain(attempt: ClaimAttempt) -> str | None:
    """Return why nothing was claimed, and what to do; None if something was."""
    if attempt.task is not None:
        return None
    if attempt.named is not None:
        return _explain_named(attempt.named, is_repetition=attempt.duplicate)
    counts = attempt.counts
    others = f"{counts.ready} are assigned to other agents, " if counts.ready else ""
    found = f"{others}{counts.blocked} are blocked and {counts.claimed} claimed"
    if counts.claimed or counts.ready:
        until = f", the first until {counts.next_expires_at:%H:%M:%S} UTC" if counts.claimed else ""
        return f"No task is ready for you: {found}{until}. Call again with wait_seconds."
    if counts.blocked:
        return (
            f"No task is ready: {found}, so nothing changes by itself. list_tasks(state='blocked') "
            "shows what they wait for; claim a failed task by its id to try it again."
        )
    return f"No task is left: {counts.done} are done, {counts.failed} failed."


def _explain_named(task: Task, *, is_repetition: bool) -> str:
    if is_repetition:
        return f"The claim of this idempotency_key has ended. Task {task.id} is {task.state} now."
    if task.state is TaskState.CLAIMED:
        instance = f" in {task.instance!r}" if task.instance else ""
        return (
            f"Task {task.id} is claimed by {task.claimed_by!r}{instance} until "
            f"{task.expires_at:%H:%M:%S} UTC."
        )
    if task.state is TaskState.BLOCKED:
        waits = ", ".join(f"{one.task_id} ({one.state})" for one in task.blocked_by)
        return f"Task {task.id} waits for {waits}."
    return f"Task {task.id} is done."


async def add_task(services: Services, call: Call, arguments: AddTask) -> TaskChanged:
    """Put a task on the session's board for any agent to claim."""
    written = await tasks.add_task(
        services,
        call.caller,
        tasks.TaskRequest(
            session_id=arguments.session_id,
            title=arguments.title,
            body=arguments.body or "",
            depends_on=arguments.depends_on,
            priority=arguments.priority,
            assignee=arguments.assignee,
            metadata=arguments.metadata,
            idempotency_key=arguments.idempotency_key,
        ),
    )
    return TaskChanged(task=TaskItem.of(written.task), duplicate=written.duplicate)


async def claim_task(services: Services, call: Call, arguments: ClaimTask) -> TaskClaimed:
    """Take a task: yours alone for ttl_seconds. task is null if none is ready; hint says why. Claim
    its task_id again to renew in time. End with finish_task."""
    attempt = await tasks.claim_task(
        services,
        call.caller,
        tasks.ClaimRequest(
            session_id=arguments.session_id,
            task_id=arguments.task_id,
            ttl_seconds=arguments.ttl_seconds,
            wait_seconds=arguments.wait_seconds,
            idempotency_key=arguments.idempotency_key,
        ),
        call.report_progress,
    )
    return TaskClaimed(
        task=None if attempt.task is None else TaskItem.of(attempt.task),
        renewed=attempt.is_renewal,
        duplicate=attempt.duplicate,
        hint=explain(attempt),
        counts=TaskCountsItem.of(attempt.counts),
        next_expires_at=attempt.counts.next_expires_at,
    )


async def finish_task(services: Services, call: Call, arguments: FinishTask) -> TaskChanged:
    """End your claim with the fencing_token of claim_task. released makes the task ready again;
    tasks that depend on it open when it is done."""
    written = await tasks.finish_task(
        services,
        call.caller,
        tasks.FinishRequest(
            session_id=arguments.session_id,
            task_id=arguments.task_id,
            fencing_token=arguments.fencing_token,
            outcome=arguments.outcome,
            result=arguments.result,
            idempotency_key=arguments.idempotency_key,
        ),
    )
    return TaskChanged(task=TaskItem.of(written.task), duplicate=written.duplicate)


async def list_tasks(services: Services, call: Call, arguments: ListTasks) -> TaskList:
    """List a session's tasks by id, with counts by state."""
    return task_list(
        await tasks.list_tasks(
            services,
            call.caller,
            arguments.session_id,
            state=arguments.state,
            assignee=arguments.assignee,
            limit=arguments.limit,
            cursor=arguments.cursor,
        )
    )


TOOLS = (
    Tool("add_task", AddTask, TaskChanged, add_task, Permission.WRITE, ADDS, is_core=False),
    Tool(
        "claim_task",
        ClaimTask,
        TaskClaimed,
        claim_task,
        Permission.WRITE,
        ADDS,
        is_core=False,
        is_waiting=True,
    ),
    Tool(
        "finish_task", FinishTask, TaskChanged, finish_task, Permission.WRITE, ADDS, is_core=False
    ),
    Tool("list_tasks", ListTasks, TaskList, list_tasks, Permission.READ, READS, is_core=False),
)
