"""Coordinator and workers: tasks that whoever is free takes, each with exactly one result.

A worker claims a task of the session's board, and the claim is renewed while it works. A worker that
has lost its claim, because it was held up for longer than the claim lasts, is refused, and whoever
has the task by then finishes it instead.
"""

from __future__ import annotations

import asyncio

from shared_context_client import LeaseLost, SharedContextClient
from shared_context_client.patterns import WorkQueue

WORKERS = ["ann", "ben", "cleo"]
FILES = ["auth.py", "batch.py", "clock.py", "digest.py", "events.py", "feed.py", "grants.py"]


async def decide(task: str) -> str:
    """What a model would do with the task."""
    await asyncio.sleep(0.05)  # the time that takes
    return f"{task}: done"


async def work(agent_id: str, session_id: str) -> None:
    async with SharedContextClient(agent_id=agent_id) as client:
        queue = WorkQueue(client.session(session_id), "summaries", ttl_seconds=30)
        while True:
            async with queue.take() as task:
                if task is None:
                    return  # the queue is closed, and all is done
                try:
                    await task.complete(await decide(task.content))
                except LeaseLost:
                    continue  # we took too long: it is another's now


async def main() -> None:
    async with SharedContextClient(agent_id="coordinator") as coordinator:
        created = await coordinator.create_session("Summarise the modules")
        queue = WorkQueue(coordinator.session(created.session_id), "summaries")
        async with asyncio.TaskGroup() as workers:
            for agent_id in WORKERS:
                workers.create_task(work(agent_id, created.session_id))
            for name in FILES:
                await queue.put(f"Summarise {name}", idempotency_key=name)
            await queue.close()
            results = await queue.results()
        for task_id, result in sorted(results.items()):
            print(f"task {task_id}, by {result.sender}: {result.content}")


if __name__ == "__main__":
    asyncio.run(main())
