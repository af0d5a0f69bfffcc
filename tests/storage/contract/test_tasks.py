"""The contract of storage/contract: tasks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared_context_server.errors import (
    Conflict,
    LeaseLost,
    PermissionDenied,
    SessionClosed,
    SessionNotFound,
    TaskNotFound,
)
from shared_context_server.models import Caller, Task, TaskBlocker, TaskOutcome, TaskState
from shared_context_server.storage import Store
from shared_context_server.storage.contract import (
    Claim,
    ClaimAttempt,
    Fence,
    Finish,
    NewTask,
    Outlook,
    TaskPage,
    TaskWrite,
)
from shared_context_server.storage.contract import tasks as bounds
from shared_context_server.storage.rules import tasks as rules
from tests.storage.builders import (
    ALICE,
    BOB,
    CAROL,
    Refusal,
    add_message,
    add_session,
    allow,
    at,
    make_audit,
    read_whole_log,
    refuse,
    writer_guard,
)

READY, BLOCKED, CLAIMED, DONE, FAILED = TaskState


async def add(store: Store, *depends_on: int, **fields: Any) -> Task:
    return (await write(store, *depends_on, **fields)).task


async def write(store: Store, *depends_on: int, guard: Any = allow, **fields: Any) -> TaskWrite:
    defaults: dict[str, Any] = {
        "session_id": "session_1",
        "creator": ALICE,
        "title": "Test it",
        "body": "",
        "priority": 0,
        "assignee": None,
        "depends_on": depends_on,
        "metadata": {},
        "created_at": at(0),
    }
    return await store.tasks.add(NewTask(**defaults | fields), guard)


async def claim(
    store: Store,
    worker: Caller = ALICE,
    task_id: int | None = None,
    *,
    seconds: float = 0,
    ttl_s: float = 10,
    guard: Any = allow,
    **fields: Any,
) -> ClaimAttempt:
    asked = Claim("session_1", task_id, worker, timedelta(seconds=ttl_s), at(seconds), **fields)
    return await store.tasks.claim(asked, guard)


async def claimed(store: Store, worker: Caller = ALICE, **fields: Any) -> Task:
    task = (await claim(store, worker, **fields)).task
    assert task is not None
    return task


async def finish(
    store: Store,
    task_id: int,
    token: int | None,
    worker: Caller = ALICE,
    outcome: TaskOutcome = TaskOutcome.DONE,
    *,
    seconds: float = 0,
    result: Any = None,
    **fields: Any,
) -> TaskWrite:
    assert token is not None
    ended = Finish("session_1", task_id, worker, token, outcome, result, at(seconds), **fields)
    return await store.tasks.finish(ended, allow)


async def listed(store: Store, *, seconds: float = 0, **query: Any) -> TaskPage:
    asked: dict[str, Any] = {"state": None, "assignee": None, "after_id": 0, "limit": 200}
    return await store.tasks.list_tasks("session_1", now=at(seconds), guard=allow, **asked | query)


async def ids(store: Store, **query: Any) -> list[int]:
    return [task.id for task in (await listed(store, **query)).tasks]


async def told(store: Store) -> list[tuple[Any, Any]]:
    """Tasks and states as the log tells them."""
    log = await read_whole_log(store)
    assert [message.metadata.get("type") for message in log] == ["task"] * len(log)
    return [(message.metadata["task_id"], message.metadata["state"]) for message in log]


async def test_a_task_goes_from_ready_to_done_and_the_log_tells_each_step(store: Store) -> None:
    await add_session(store)
    added = await write(store, title="Test it", body="All of it", metadata={"a": 1}, priority=3)
    task = added.task
    assert task == Task(
        id=1,
        session_id="session_1",
        title="Test it",
        body="All of it",
        state=READY,
        priority=3,
        assignee=None,
        depends_on=(),
        blocked_by=(),
        metadata={"a": 1},
        created_by="alice",
        created_at=at(0),
        claimed_by=None,
        instance="",
        fencing_token=None,
        expires_at=None,
        result=None,
        finished_by=None,
        finished_at=None,
    )
    attempt = await claim(store, BOB, seconds=1)
    assert attempt.task == replace(
        task, state=CLAIMED, claimed_by="bob", fencing_token=1, expires_at=at(11)
    )
    assert (attempt.counts.claimed, attempt.counts.next_expires_at) == (1, at(11))
    [lease] = await store.leases.list_held("session_1", limit=9, now=at(2), guard=allow)
    assert (lease.name, lease.holder, lease.fencing_token) == ("task:1", "bob", 1)
    ended = await finish(store, 1, 1, BOB, seconds=2, result={"ok": True})
    assert ended.task == replace(
        task, state=DONE, result={"ok": True}, finished_by="bob", finished_at=at(2)
    )
    assert (await listed(store)).tasks == [ended.task]
    assert await store.leases.list_held("session_1", limit=9, now=at(2), guard=allow) == []
    log = await read_whole_log(store)
    assert log == [added.message, attempt.message, ended.message]
    assert [message.sender for message in log] == ["alice", "bob", "bob"]
    assert await told(store) == [(1, "ready"), (1, "claimed"), (1, "done")]
    assert [message.content for message in log] == [
        "Task 1 added: Test it.",
        "Task 1 claimed: Test it.",
        "Task 1 done: Test it.",
    ]


async def test_the_oldest_of_the_highest_priority_that_the_caller_may_have_comes_first(
    store: Store,
) -> None:
    await add_session(store)
    for priority, assignee in ((0, None), (5, "bob"), (5, None), (5, None), (9, "carol")):
        await add(store, priority=priority, assignee=assignee)
    assert [(await claimed(store, BOB)).id for _ in range(4)] == [2, 3, 4, 1]
    nothing = await claim(store, BOB)
    assert (nothing.task, nothing.counts.ready, nothing.counts.claimed) == (None, 1, 4)
    assert await store.tasks.look("session_1", BOB, now=at(0)) == Outlook(False, at(10))
    assert await store.tasks.look("session_1", CAROL, now=at(0)) == Outlook(True, at(10))
    with pytest.raises(PermissionDenied):
        await claim(store, BOB, 5)
    assert (await claimed(store, CAROL)).id == 5


async def test_claims_at_once_never_give_one_task_twice(store: Store) -> None:
    await add_session(store)
    for _ in range(10):
        await add(store)
    attempts = await asyncio.gather(*[claim(store, worker) for worker in (ALICE, BOB) * 8])
    got = [attempt.task.id for attempt in attempts if attempt.task]
    assert sorted(got) == list(range(1, 11))


async def test_a_claim_that_runs_out_is_ready_and_its_token_is_stale(store: Store) -> None:
    await add_session(store)
    await add(store)
    await add(store, priority=-1)
    first = await claimed(store, ALICE)
    assert (await claimed(store, BOB)).id == 2
    assert await ids(store, state=CLAIMED, seconds=9) == [1, 2]
    assert await ids(store, state=READY, seconds=9) == []
    assert await ids(store, state=READY, seconds=10) == [1, 2]
    page = await listed(store, seconds=10)
    assert (page.counts.ready, page.counts.claimed) == (2, 0)
    assert page.tasks[0].claimed_by is None
    assert await store.tasks.look("session_1", BOB, now=at(10)) == Outlook(True, None)
    with pytest.raises(LeaseLost):
        await finish(store, 1, first.fencing_token, seconds=10)
    second = await claim(store, BOB, seconds=10)
    assert second.task is not None
    assert (second.task.id, second.task.fencing_token) == (1, 2)
    assert second.message is not None
    assert second.message.content.endswith("The claim of alice has run out.")
    with pytest.raises(LeaseLost) as lost:
        await finish(store, 1, first.fencing_token, seconds=11)
    assert lost.value.details["holder"] == "bob"
    assert lost.value.details["current_token"] == 2
    with pytest.raises(LeaseLost):
        await finish(store, 1, 2, ALICE, seconds=11)
    await finish(store, 1, 2, BOB, seconds=11)
    with pytest.raises(LeaseLost):
        await finish(store, 1, 2, BOB, seconds=11)


async def test_only_the_same_thread_of_the_same_agent_renews(store: Store) -> None:
    await add_session(store)
    await add(store)
    one, other = (replace(ALICE, instance=name) for name in ("one", "other"))
    first = await claimed(store, one)
    assert first.instance == "one"
    refused = await claim(store, other, 1, seconds=5)
    assert (refused.task, refused.named) == (None, first)
    assert (await claim(store, ALICE, 1, seconds=5)).task is None
    renewed = await claim(store, one, 1, seconds=5)
    assert renewed.task == replace(first, expires_at=at(15))
    assert (renewed.is_renewal, renewed.message) == (True, None)
    [lease] = await store.leases.list_held("session_1", limit=9, now=at(14), guard=allow)
    assert lease.expires_at == at(15)
    with pytest.raises(LeaseLost):
        await finish(store, 1, 1, other, seconds=14)
    await finish(store, 1, 1, ALICE, seconds=14)  # names no thread, and has the token


async def test_dependencies_open_when_all_are_done(store: Store) -> None:
    await add_session(store)
    await add(store)
    await add(store)
    third = await add(store, 1, 2)
    assert third.state is BLOCKED
    assert third.blocked_by == (TaskBlocker(1, READY), TaskBlocker(2, READY))
    for task_id in (1, 2):
        task = await claimed(store)
        assert task.id == task_id
        assert (await claim(store, BOB, 3)).named is not None
        ended = await finish(store, task_id, task.fencing_token)
    assert ended.message is not None
    assert ended.message.metadata["ready"] == [3]
    assert ended.message.content == "Task 2 done: Test it. Ready now: 3."
    assert (await add(store, 1, 2)).state is READY
    page = await listed(store)
    assert [task.state for task in page.tasks] == [DONE, DONE, READY, READY]
    assert (page.counts.ready, page.counts.blocked, page.counts.done) == (2, 0, 2)


async def test_what_waits_for_a_failed_task_stays_blocked_until_that_is_tried_again(
    store: Store,
) -> None:
    await add_session(store)
    await add(store)
    await add(store, 1)
    await finish(store, 1, (await claimed(store)).fencing_token, outcome=TaskOutcome.FAILED)
    assert (await claim(store, BOB)).task is None
    [waiting] = (await listed(store, state=BLOCKED)).tasks
    assert waiting.blocked_by == (TaskBlocker(1, FAILED),)
    assert (await add(store, 1)).state is BLOCKED
    again = await claimed(store, BOB, task_id=1)
    assert again.fencing_token == 2
    await finish(store, 1, 2, BOB)
    assert await ids(store, state=READY) == [2, 3]


async def test_a_released_task_is_ready_and_keeps_its_note(store: Store) -> None:
    await add_session(store)
    await add(store)
    released = await finish(
        store,
        1,
        (await claimed(store)).fencing_token,
        outcome=TaskOutcome.RELEASED,
        result="half of it",
    )
    assert (released.task.state, released.task.finished_by) == (READY, None)
    again = await claimed(store, BOB)
    assert (again.result, again.fencing_token) == ("half of it", 2)
    assert await told(store) == [(1, "ready"), (1, "claimed"), (1, "ready"), (1, "claimed")]


async def test_a_repeated_call_happens_once(store: Store) -> None:
    await add_session(store)
    keyed = {"idempotency_key": "k", "fingerprint": "f"}
    added = await write(store, **keyed)
    again = await write(store, **keyed)
    assert (again.task, again.duplicate, again.message) == (added.task, True, None)
    with pytest.raises(Conflict):
        await write(store, idempotency_key="k", fingerprint="other")
    await write(store)
    key = {"idempotency_key": "c", "fingerprint": "f"}
    first = await claim(store, **key)
    second = await claim(store, **key)
    assert (second.task, second.duplicate) == (first.task, True)
    assert await ids(store, state=CLAIMED) == [1]
    ended = [await finish(store, 1, 1, idempotency_key="e", fingerprint="f") for _ in range(2)]
    assert [one.duplicate for one in ended] == [False, True]
    gone = await claim(store, **key)  # that claim has ended
    assert (gone.task, gone.named) == (None, ended[0].task)
    assert len(await read_whole_log(store)) == 4


async def test_what_cannot_be_is_refused_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_session(store)
    await add(store)
    with pytest.raises(TaskNotFound) as unknown:
        await write(store, 1, 2)
    assert unknown.value.details == {"field": "depends_on", "task_id": 2}
    for unknown_task in (claim(store, task_id=2**80), finish(store, 2, 1)):
        with pytest.raises(TaskNotFound):
            await unknown_task
    with pytest.raises(SessionNotFound):
        await write(store, session_id="none")
    with pytest.raises(Refusal):
        await write(store, guard=refuse)
    with pytest.raises(Refusal):
        await claim(store, guard=refuse)
    monkeypatch.setattr(rules, "MAX_UNFINISHED_TASKS", 1)
    with pytest.raises(Conflict):
        await write(store)
    monkeypatch.setattr(rules, "MAX_UNFINISHED_TASKS", 100)
    for module in ("sqlite", "postgres"):
        monkeypatch.setattr(f"shared_context_server.storage.{module}.tasks.MAX_DEPENDENTS", 1)
    await write(store, 1)
    with pytest.raises(Conflict) as crowded:
        await write(store, 1)
    assert crowded.value.details["field"] == "depends_on"
    assert bounds.MAX_UNFINISHED_TASKS == 10_000
    await store.sessions.close("session_1", at(1), allow, make_audit())
    for write_to_closed in (
        write(store, guard=writer_guard(ALICE)),
        claim(store, guard=writer_guard(ALICE)),
    ):
        with pytest.raises(SessionClosed):
            await write_to_closed
    assert await ids(store) == [1, 2]
    assert len(await read_whole_log(store)) == 2


async def test_lists_are_paged_by_id_and_filtered(store: Store) -> None:
    await add_session(store)
    for number in range(1, 9):
        await add(store, assignee="bob" if number % 2 else None, body="x" * 30_000)
    assert await ids(store, limit=1) == [1]
    page = await listed(store, limit=8)
    assert page.has_more
    assert 1 <= len(page.tasks) < 8
    assert await ids(store, after_id=6) == [7, 8]
    assert await ids(store, assignee="bob", limit=2) == [1, 3]
    assert await ids(store, assignee="bob", state=READY, after_id=3, limit=2) == [5, 7]
    assert await ids(store, assignee="bob", state=DONE) == []
    assert await ids(store, state=BLOCKED, after_id=2**80) == []
    assert (await listed(store, limit=1)).counts.ready == 8


async def test_a_claim_is_a_fence_for_other_writes(store: Store) -> None:
    await add_session(store)
    await add(store)
    await claimed(store, BOB)
    fence = Fence("task:1", 1)
    await add_message(store, sender=BOB, created_at=at(1), fence=fence)
    for sender, seconds in ((ALICE, 1), (BOB, 10)):
        with pytest.raises(LeaseLost):
            await add_message(store, sender=sender, created_at=at(seconds), fence=fence)


async def test_tasks_go_with_their_session(store: Store) -> None:
    await add_session(store)
    await add(store)
    await add(store, 1)
    await claimed(store)
    await store.sessions.delete("session_1", allow, make_audit())
    await add_session(store)
    page = await listed(store)
    assert (page.tasks, page.counts.ready + page.counts.blocked + page.counts.claimed) == ([], 0)
    assert (await add(store)).id == 1
    assert (await claimed(store)).fencing_token == 1
    done = await finish(store, 1, 1)
    assert done.message is not None
    assert "ready" not in done.message.metadata
