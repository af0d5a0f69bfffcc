"""A worker as a process of its own: `python -m tests.patterns.worker SESSION AGENT TTL`.

It says in the session what it begins. With PAUSED set in the environment it completes a task only
when a line comes on stdin, and says on stdout what became of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from shared_context_client import LeaseLost, SharedContextClient
from shared_context_client.patterns import Task, WorkQueue

SHORTEST_WORK_S, LONGEST_WORK_S = 0.1, 0.3  # long enough to be killed within


async def do(task: Task) -> str:
    if "PAUSED" in os.environ:
        await asyncio.to_thread(sys.stdin.readline)
    else:
        await asyncio.sleep(random.uniform(SHORTEST_WORK_S, LONGEST_WORK_S))
    return f"{task.content}: done"


async def work(session_id: str, agent_id: str, ttl_seconds: int) -> None:
    async with SharedContextClient(agent_id=agent_id) as client:
        session = client.session(session_id)
        queue = WorkQueue(session, "tests", ttl_seconds=ttl_seconds)
        while True:
            async with queue.take() as task:
                if task is None:
                    return
                token = task.lease.fencing_token
                await session.add("begun", metadata={"begun": task.id, "fencing_token": token})
                try:
                    await task.complete(await do(task), {"fencing_token": token})
                except LeaseLost as refused:
                    print(refused.code, flush=True)
                else:
                    print("completed", flush=True)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
