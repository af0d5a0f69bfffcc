"""Tasks: add work to a session, claim it, finish it, and list it."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import anyio
from pydantic import JsonValue

from shared_context_server import policy
from shared_context_server.errors import CursorLost, SharedContextError
from shared_context_server.events.bus import News
from shared_context_server.models import (
    Caller,
    Event,
    EventKind,
    JsonObject,
    Permission,
    Task,
    TaskOutcome,
    TaskState,
    Waiting,
)
from shared_context_server.services.context import Services
from shared_context_server.services.fingerprint import fingerprint
from shared_context_server.services.follow import Follow, ReportProgress, SessionCursor
from shared_context_server.services.messages import announce
from shared_context_server.services.paging import decode_cursor, encode_cursor
from shared_context_server.services.quotas import Growth, refuse_after
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.codec import encode_json
from shared_context_server.storage.contract import (
    Claim,
    ClaimAttempt,
    Finish,
    NewTask,
    TaskCounts,
    TaskDetail,
    TaskPage,
    TaskWrite,
)
from shared_context_server.storage.rules.pages import count_bytes
from shared_context_server.storage.rules.tasks import holds_claim, lease_name

DEFAULT_LISTED = 50


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """The arguments of add_task."""

    session_id: str
    title: str
    body: str
    depends_on: list[int]
    priority: int
    assignee: str | None
    metadata: JsonObject
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The arguments of claim_task."""

    session_id: str
    task_id: int | None
    ttl_seconds: int
    wait_seconds: float
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class ListedTasks:
    page: TaskPage
    next_cursor: str | None


async def add_task(services: Services, caller: Caller, request: TaskRequest) -> TaskWrite:
    """Add a task, which is blocked until all that it depends on is done.

    Raises TaskNotFound for a dependency that does not exist, and Conflict for too many tasks.
    """
    if request.assignee is not None and (
        wrong := await services.identity.names.check_agent_ids([request.assignee], "assignee")
    ):
        raise wrong
    depends_on = tuple(dict.fromkeys(request.depends_on))
    new = NewTask(
        session_id=request.session_id,
        creator=caller,
        title=request.title,
        body=request.body,
        priority=request.priority,
        assignee=request.assignee,
        depends_on=depends_on,
        metadata=request.metadata,
        created_at=utc_now(),
        idempotency_key=request.idempotency_key,
        fingerprint=_fingerprint(
            request.idempotency_key,
            request.title,
            request.body,
            request.priority,
            request.assignee,
            sorted(depends_on),
            request.metadata,
        ),
    )
    guard = partial(policy.require_session_work, caller)
    growth = partial(_measure_growth, new)
    async with services.quotas.admit(caller, request.session_id, growth) as errors:
        written = await services.store.tasks.add(new, refuse_after(guard, errors))
    if written.message is not None:
        announce(services, written.message)
    return written


def _measure_growth(new: NewTask) -> Growth:
    """Return what storing the task, and the message that tells of it, adds."""
    texts = (new.title, new.body, encode_json(new.metadata))
    return Growth(messages=1, bytes=sum(map(count_bytes, texts)))


async def claim_task(
    services: Services,
    caller: Caller,
    request: ClaimRequest,
    report_progress: ReportProgress | None = None,
) -> ClaimAttempt:
    """Claim a task, waiting up to `wait_seconds` until there is one that the caller may claim.

    Raises SessionClosed or SessionNotFound
    when the session is closed or deleted meanwhile, Unauthenticated when the caller's token or key
    has ended, and Unavailable when the server is stopping.
    """
    policy.require_permission(caller, Permission.WRITE)
    if request.wait_seconds == 0:
        return await _try(services, caller, request)
    with (
        services.slots.take(caller),
        services.presence.wait(caller, Waiting("task", request.session_id, _name_wanted(request))),
        services.bus.subscribe(_concerns_tasks, session_id=request.session_id) as subscription,
    ):
        follow = Follow(services, caller, subscription, request.wait_seconds, report_progress)
        attempt: ClaimAttempt | None = None
        cursor: SessionCursor | None = None
        async for news in follow:
            if cursor is not None and not await _may_claim(follow, cursor, news, request):
                continue
            await follow.require_current()  # before the attempt, because it writes
            attempt = await _try(services, caller, request)
            if attempt.task is not None or _is_over(attempt):
                break
            cursor = SessionCursor(services, caller, request.session_id, attempt.last_seq)
            follow.look_again_at = attempt.counts.next_expires_at  # an expiry has no message
        assert attempt is not None  # because the loop begins with an attempt
        return attempt


async def _may_claim(
    follow: Follow, cursor: SessionCursor, news: News, request: ClaimRequest
) -> bool:
    """Whether another attempt may succeed: the log tells of a change of a task, or a claim has run
    out, and a look at the store finds a task. Other messages cost no look."""
    now = utc_now()
    is_due = follow.look_again_at is not None and follow.look_again_at <= now
    is_told = False
    is_closed = any(event.kind is EventKind.SESSION_CLOSED for event in news.events)
    while True:
        try:
            messages = await follow.read(cursor, news)
        except CursorLost:  # the store was set back: look at the tasks as they are there
            return True
        is_told = is_told or any(message.metadata.get("type") == "task" for message in messages)
        if not cursor.has_more:
            break
    if is_closed:
        return True  # the attempt says so
    if not (is_due or is_told):
        return False
    outlook = await follow.services.store.tasks.look(request.session_id, follow.caller, now=now)
    follow.look_again_at = outlook.next_expires_at
    return outlook.is_ready or request.task_id is not None


def _name_wanted(request: ClaimRequest) -> str | None:
    """Return the name that the claim of the wanted task would have; None for any task."""
    return None if request.task_id is None else lease_name(request.task_id)


def _is_over(attempt: ClaimAttempt) -> bool:
    """Whether waiting longer is of no use."""
    return attempt.duplicate or (
        attempt.named is not None and attempt.named.state is TaskState.DONE
    )


async def _try(services: Services, caller: Caller, request: ClaimRequest) -> ClaimAttempt:
    """Make one attempt. If the call is cancelled while it is written, the task is released again,
    because nobody would know of the claim."""
    claim = Claim(
        session_id=request.session_id,
        task_id=request.task_id,
        worker=caller,
        ttl=timedelta(seconds=request.ttl_seconds),
        claimed_at=utc_now(),
        idempotency_key=request.idempotency_key,
        fingerprint=_fingerprint(request.idempotency_key, request.task_id, request.ttl_seconds),
    )
    attempting = asyncio.ensure_future(_claim(services, caller, claim))
    try:
        attempt = await asyncio.shield(attempting)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True), suppress(SharedContextError):
            attempt = await attempting
            if attempt.message is not None:
                announce(services, attempt.message)
            if attempt.message is not None and request.idempotency_key is None:
                assert attempt.task is not None
                await _give_back(services, caller, attempt.task)
        raise
    if attempt.message is not None:
        announce(services, attempt.message)
    return attempt


async def _claim(services: Services, caller: Caller, claim: Claim) -> ClaimAttempt:
    """Claim within the quotas, since the claim and its result are told by a message each. Finishing is
    always allowed, and so is renewing a claim."""
    guard = partial(policy.require_session_work, caller)
    growth = Growth(messages=2)
    async with services.quotas.admit(caller, claim.session_id, lambda: growth) as errors:
        if errors and claim.task_id is not None:
            named = await services.store.tasks.get_detail(
                claim.session_id, claim.task_id, guard=guard, now=claim.claimed_at
            )
            errors = () if holds_claim(caller, named.task) else errors
        return await services.store.tasks.claim(claim, refuse_after(guard, errors))


async def _give_back(services: Services, caller: Caller, task: Task) -> None:
    assert task.fencing_token is not None
    await finish_task(
        services,
        caller,
        FinishRequest(task.session_id, task.id, task.fencing_token, TaskOutcome.RELEASED, None),
    )


@dataclass(frozen=True, slots=True)
class FinishRequest:
    """The arguments of finish_task."""

    session_id: str
    task_id: int
    fencing_token: int
    outcome: TaskOutcome
    result: JsonValue
    idempotency_key: str | None = None


async def finish_task(services: Services, caller: Caller, request: FinishRequest) -> TaskWrite:
    """End the caller's claim. Raises LeaseLost if the claim is not held (any more), and
    TaskNotFound."""
    finish = Finish(
        session_id=request.session_id,
        task_id=request.task_id,
        worker=caller,
        fencing_token=request.fencing_token,
        outcome=request.outcome,
        result=request.result,
        finished_at=utc_now(),
        idempotency_key=request.idempotency_key,
        fingerprint=_fingerprint(
            request.idempotency_key,
            request.task_id,
            request.fencing_token,
            request.outcome.value,
            request.result,
        ),
    )
    written = await services.store.tasks.finish(
        finish, partial(policy.require_session_work, caller)
    )
    if written.message is not None:
        announce(services, written.message)
    return written


async def list_tasks(
    services: Services,
    caller: Caller,
    session_id: str,
    *,
    state: TaskState | None = None,
    assignee: str | None = None,
    limit: int = DEFAULT_LISTED,
    cursor: str | None = None,
) -> ListedTasks:
    """Return one page of the session's tasks, by id, and the counts of all."""
    policy.require_permission(caller, Permission.READ)
    page = await services.store.tasks.list_tasks(
        session_id,
        state=state,
        assignee=assignee,
        after_id=0 if cursor is None else int(str(decode_cursor(cursor, int)[0])),
        limit=limit,
        now=utc_now(),
        guard=partial(policy.require_session_read, caller),
    )
    return ListedTasks(page, encode_cursor(page.tasks[-1].id) if page.has_more else None)


async def get_task(services: Services, caller: Caller, session_id: str, task_id: int) -> TaskDetail:
    """Return a task with what it depends on and what depends on it. Raises TaskNotFound."""
    return await services.store.tasks.get_detail(
        session_id, task_id, now=utc_now(), guard=partial(policy.require_session_read, caller)
    )


async def list_newest(
    services: Services, caller: Caller, session_id: str, state: TaskState, *, limit: int
) -> tuple[list[Task], TaskCounts]:
    """Return the tasks in this state with the highest ids, highest first, and the counts of all.

    Tasks are numbered without gaps and listed upwards. So this looks among the last ones, and further
    back if those in this state are few.
    """
    counts = (await list_tasks(services, caller, session_id, limit=1)).page.counts
    reach = 4 * limit
    while True:
        after_id = max(0, counts.total - reach)
        newest: deque[Task] = deque(maxlen=limit)
        cursor: str | None = encode_cursor(after_id)
        while cursor is not None:
            listed = await list_tasks(
                services, caller, session_id, state=state, limit=reach, cursor=cursor
            )
            newest.extend(listed.page.tasks)
            cursor = listed.next_cursor
        if len(newest) == limit or after_id == 0:
            return list(reversed(newest)), counts
        reach *= 4


async def list_unfinished(services: Services, caller: Caller, session_id: str) -> ListedTasks:
    """Return the first tasks that are claimed, ready or blocked, in this order, as one page."""
    pages = [
        (await list_tasks(services, caller, session_id, state=state)).page
        for state in (TaskState.CLAIMED, TaskState.READY, TaskState.BLOCKED)
    ]
    shown = [task for page in pages for task in page.tasks]
    has_more = any(page.has_more for page in pages)
    return ListedTasks(TaskPage(shown, has_more, pages[-1].counts), None)


def _fingerprint(key: str | None, *parts: object) -> str:
    return "" if key is None else fingerprint(*parts)


def _concerns_tasks(event: Event) -> bool:
    return event.kind in (
        EventKind.MESSAGE_ADDED,
        EventKind.SESSION_CLOSED,
        EventKind.SESSION_DELETED,
    )
