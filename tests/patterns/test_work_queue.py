"""Each task gets exactly one result, whoever is killed, frozen or fails meanwhile."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from shared_context_client import MessageItem, Session
from shared_context_client.patterns import WorkQueue
from tests.client.conftest import PATIENCE_S, make_client
from tests.patterns.conftest import ROOT, client_environment

TASKS = 20
WORKERS = 4
VICTIMS = 5
TTL_S = 1

StartWorker = Callable[..., Awaitable[Process]]


@pytest.fixture
async def session(server_url: str) -> AsyncIterator[Session]:
    async with make_client(server_url, "coordinator") as client:
        yield client.session((await client.create_session("tests")).session_id)


@pytest.fixture
async def start_worker(server_url: str, session: Session) -> AsyncIterator[StartWorker]:
    started: list[Process] = []

    async def start(agent_id: str, **variables: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.patterns.worker", session.id, agent_id, str(TTL_S)),
            cwd=ROOT,
            env=client_environment(server_url) | variables,
            stdin=PIPE,
            stdout=PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def results_of(session: Session) -> list[MessageItem]:
    """Each end of a task in the log."""
    found = [message async for message in session.follow(after_seq=0)]
    return [message for message in found if message.metadata.get("state") == "done"]


class Trouble:
    """Kills workers that have just begun a task, each replaced by a new one, and freezes others
    until somebody else has begun their task."""

    def __init__(self, start: StartWorker, seed: int) -> None:
        self._start = start
        self._random = random.Random(seed)
        self.running: dict[str, Process] = {}
        self._frozen: dict[int, str] = {}
        # Which beginnings of a task, in the first half: so all of them come.
        self._due = set(self._random.sample(range(TASKS // 2), VICTIMS))
        self.victims = 0
        self.begun: Counter[int] = Counter()

    async def run(self, session: Session) -> None:
        async for message in session.follow(after_seq=0):
            task_id = message.metadata.get("begun")
            if isinstance(task_id, int):
                await self._note(task_id, message.sender)

    async def _note(self, task_id: int, agent_id: str) -> None:
        is_due = self.begun.total() in self._due
        self.begun[task_id] += 1
        if task_id in self._frozen and self._frozen[task_id] != agent_id:
            self.running[self._frozen.pop(task_id)].send_signal(signal.SIGCONT)
        if not is_due or agent_id not in self.running:
            return
        self.victims += 1
        if self._random.random() < 0.5 and not self._frozen:
            self._frozen[task_id] = agent_id
            self.running[agent_id].send_signal(signal.SIGSTOP)
            return
        process = self.running.pop(agent_id)
        process.kill()
        await process.wait()
        name = f"replacement-{self.victims}"
        self.running[name] = await self._start(name)

    def thaw(self) -> None:
        """Whoever was frozen so late that nobody had to take its task over."""
        for agent_id in self._frozen.values():
            self.running[agent_id].send_signal(signal.SIGCONT)


async def test_each_task_is_done_once_while_workers_die_and_freeze(
    session: Session, start_worker: StartWorker
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    queue = WorkQueue(session, "tests")
    tasks = [await queue.put(f"task {n}") for n in range(TASKS)]
    await queue.close()
    trouble = Trouble(start_worker, seed)
    for n in range(WORKERS):
        trouble.running[f"worker-{n}"] = await start_worker(f"worker-{n}")
    async with asyncio.timeout(PATIENCE_S * 2):
        troubling = asyncio.create_task(trouble.run(session))
        counted = await queue.results()
        trouble.thaw()
        for process in list(trouble.running.values()):
            await process.communicate()
            assert process.returncode == 0
        await session.close()
        await troubling
    results = await results_of(session)
    assert Counter(result.metadata["task_id"] for result in results) == dict.fromkeys(tasks, 1)
    assert {task_id: result.sender for task_id, result in counted.items()} == {
        result.metadata["task_id"]: result.sender for result in results
    }
    assert trouble.begun.total() > TASKS, "nobody died within a task"


async def test_a_worker_that_was_frozen_is_refused_and_its_successor_has_a_larger_token(
    session: Session, start_worker: StartWorker, server_url: str
) -> None:
    queue = WorkQueue(session, "tests")
    await queue.put("task")
    frozen = await start_worker("frozen", PAUSED="yes")
    assert frozen.stdin is not None
    async with asyncio.timeout(PATIENCE_S), make_client(server_url, "successor") as client:
        begun = await anext(
            message async for message in session.follow(0) if "begun" in message.metadata
        )
        frozen.send_signal(signal.SIGSTOP)
        async with WorkQueue(client.session(session.id), "tests").take() as task:
            assert task is not None
            token = begun.metadata["fencing_token"]
            assert isinstance(token, int)
            assert task.lease.fencing_token > token
            frozen.send_signal(signal.SIGCONT)
            frozen.stdin.write(b"\n")
            assert frozen.stdout is not None
            assert await frozen.stdout.readline() == b"LEASE_LOST\n"
            await task.complete("done by the successor")
        await queue.close()
        await frozen.wait()
        await session.close()
    assert [result.sender for result in await results_of(session)] == ["successor"]


async def test_many_workers_contend_for_short_tasks(session: Session, server_url: str) -> None:
    """What is done between a worker's look and its lease is not done again."""

    async def work(agent_id: str) -> None:
        async with make_client(server_url, agent_id) as client:
            queue = WorkQueue(client.session(session.id), "tests")
            while True:
                async with queue.take() as task:
                    if task is None:
                        return
                    await task.complete("done")

    queue = WorkQueue(session, "tests")
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as workers:
        for n in range(8):
            workers.create_task(work(f"worker-{n}"))
        tasks = [await queue.put(f"task {n}") for n in range(40)]
        await queue.close()
    await session.close()
    results = await results_of(session)
    assert Counter(result.metadata["task_id"] for result in results) == dict.fromkeys(tasks, 1)


async def test_a_task_that_fails_goes_to_the_next(session: Session, server_url: str) -> None:
    queue = WorkQueue(session, "tests")
    task_id = await queue.put("task")
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ZeroDivisionError):
            async with queue.take():
                raise ZeroDivisionError
        async with make_client(server_url, "next") as client:
            theirs = WorkQueue(client.session(session.id), "tests")
            async with theirs.take() as task:
                assert task is not None
                assert task.id == task_id
                await task.complete("done")
        await queue.close()
        assert list(await queue.results()) == [task_id]
        async with queue.take() as task:
            assert task is None


async def test_a_task_put_twice_under_one_key_is_there_once(session: Session) -> None:
    queue = WorkQueue(session, "tests")
    first = await queue.put("task", idempotency_key="the task")
    assert await queue.put("task", idempotency_key="the task") == first
    await queue.close()
    async with asyncio.timeout(PATIENCE_S):
        async with queue.take() as task:
            assert task is not None
            await task.complete("done")
        assert list(await queue.results()) == [first]


async def test_queues_of_one_session_do_not_meet(session: Session) -> None:
    other = WorkQueue(session, "other")
    await other.put("task")
    queue = WorkQueue(session, "tests")
    await queue.close()
    async with asyncio.timeout(PATIENCE_S), queue.take() as task:
        assert task is None
