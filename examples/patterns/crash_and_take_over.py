"""A worker is killed in the middle of a task; another takes over.

The worker is a process of its own, and dies by SIGKILL: it can give nothing back. Its claim is not
renewed any more and runs out; then the task is the other's, with a larger fencing token. A write of
the dead one that arrives only now, held up somewhere on its way, is refused.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from shared_context_client import LeaseLost, Session, SharedContextClient
from shared_context_client.patterns import WorkQueue

TTL_S = 2  # how soon the other takes over; longer than any pause of a worker that lives


async def decide(task: str) -> str:
    """What a model would do with the task."""
    return f"{task}: done"


async def work_until_killed(session_id: str) -> None:
    """The worker process: it takes the task, says so, and does not get any further."""
    async with SharedContextClient(agent_id="doomed") as client:
        session = client.session(session_id)
        async with WorkQueue(session, "jobs", ttl_seconds=TTL_S).take() as task:
            assert task is not None
            held = {"lease": task.lease.name, "fencing_token": task.lease.fencing_token}
            await session.add("I have begun.", metadata=held)
            await asyncio.Event().wait()


async def kill_in_the_middle(session: Session) -> dict[str, Any]:
    """Start the worker, kill it once it has begun; the lease and the fencing token that it had."""
    command = [sys.executable, __file__, session.id]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        async for message in session.follow(after_seq=0):
            if "lease" in message.metadata:
                return message.metadata
        raise AssertionError("The session was closed.")
    finally:
        process.kill()
        await process.wait()


async def take_over(session_id: str) -> int:
    """Do the task as soon as it is free; the fencing token it was done with."""
    async with SharedContextClient(agent_id="rescuer") as client:
        queue = WorkQueue(client.session(session_id), "jobs", ttl_seconds=TTL_S)
        async with queue.take() as task:
            assert task is not None
            await task.complete(await decide(task.content))
            return task.lease.fencing_token


async def write_late(session_id: str, held: dict[str, Any]) -> None:
    """What the dead worker would have sent, arriving now."""
    async with SharedContextClient(agent_id="doomed") as client:
        await client.add_message(session_id, "My result.", **held)


async def main() -> None:
    async with SharedContextClient(agent_id="coordinator") as coordinator:
        session = coordinator.session((await coordinator.create_session("Migrate")).session_id)
        queue = WorkQueue(session, "jobs")
        await queue.put("Migrate the orders")
        await queue.close()
        held = await kill_in_the_middle(session)
        print(f"killed a worker with fencing token {held['fencing_token']}")
        token = await take_over(session.id)
        print(f"another did the task with fencing token {token}")
        try:
            await write_late(session.id, held)
        except LeaseLost as refused:
            print(f"the late write: {refused.code}")
        for result in (await queue.results()).values():
            print(f"the result, by {result.sender}: {result.content}")


if __name__ == "__main__":
    asyncio.run(work_until_killed(sys.argv[1]) if len(sys.argv) > 1 else main())
