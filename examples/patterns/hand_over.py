"""Sequential hand-over: a planner, a writer and a reviewer, each when the one before has finished.

Whoever has finished mentions the next one, and hands over with one message: the result and the
turn are one write, so neither can be there without the other. The others wait without asking.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from shared_context_client import Conflict, MessageItem, Session, SharedContextClient

CHAIN = ["planner", "writer", "reviewer", "owner"]


async def decide(agent_id: str, text: str) -> str:
    """What a model would do with the text."""
    scripted = {
        "planner": "Plan: one page, two examples.",
        "writer": "Draft: the page with both examples.",
        "reviewer": "Approved: the draft follows the plan.",
    }
    return scripted[agent_id]


async def next_mention(session: Session) -> MessageItem:
    """The first message that mentions us and that we have not marked as read."""
    while True:
        waited = await session.wait(mentions_me=True, limit=1)
        if waited.messages:
            return waited.messages[0]


async def take_turn(agent_id: str, next_agent: str, session_id: str) -> None:
    """One turn; an agent that is killed in it and started again begins it anew."""
    async with SharedContextClient(agent_id=agent_id) as client:
        session = client.session(session_id)
        given = await next_mention(session)
        result = await decide(agent_id, given.content)
        with suppress(Conflict):  # we had answered, in other words, before we were killed
            await session.add(
                f"@{next_agent} {result}",
                parent_message_id=given.id,
                idempotency_key=f"answer to {given.id}",
            )
        await session.mark_read(given.seq)  # last: until here we are given it again


async def run_chain(owner: SharedContextClient, order: list[str]) -> str:
    """The session in which the chain has run, its agents started in this order."""
    created = await owner.create_session("Write the page on retries")
    session = owner.session(created.session_id)
    async with asyncio.TaskGroup() as agents:
        for agent_id in order:
            next_agent = CHAIN[CHAIN.index(agent_id) + 1]
            agents.create_task(take_turn(agent_id, next_agent, session.id))
        await session.add(f"@{CHAIN[0]} Please: a page on retries.")
    return session.id


async def main() -> None:
    async with SharedContextClient(agent_id="owner") as owner:
        session = owner.session(await run_chain(owner, ["reviewer", "writer", "planner"]))
        for message in (await session.messages()).messages:
            print(f"{message.seq}. {message.sender}: {message.content}")


if __name__ == "__main__":
    asyncio.run(main())
