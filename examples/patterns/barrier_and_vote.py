"""Barrier and vote: three agents propose, wait until all have proposed, and vote on the proposals.

Without the barrier an agent might vote before it can know all proposals. The ballot is one value in
shared memory. It is decided by the very write that brings the deciding vote, so all see the same
outcome, and a vote that comes later changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from shared_context_client import Session, SharedContextClient
from shared_context_client.patterns import Barrier, update_memory, wait_until

AGENTS = ["ann", "ben", "cleo"]


async def propose(agent_id: str) -> str:
    """What a model would propose."""
    return {"ann": "SQLite", "ben": "PostgreSQL", "cleo": "PostgreSQL"}[agent_id]


async def decide(agent_id: str, proposals: dict[str, str]) -> str:
    """Which proposal a model would vote for; here: the most frequent."""
    return Counter(proposals.values()).most_common(1)[0][0]


class Vote:
    """One ballot of `voters` agents. A choice of more than half of them decides it; if all have
    voted and none has that many, the outcome is None. A name serves once."""

    def __init__(self, session: Session, name: str, voters: int) -> None:
        self._session = session
        self._key = f"vote:{name}"
        self._voters = voters

    async def cast(self, voter: str, choice: str) -> str | None:
        """Vote, also again after a restart; returns the choice that counts for this voter: its
        first, or None if it came too late."""
        ballot = await update_memory(
            self._session,
            self._key,
            lambda ballot: self._count(ballot, voter, choice),
            default={"votes": {}, "is_decided": False, "outcome": None},
        )
        await self._session.add(f"{voter} has voted on {self._key}.")  # wakes those who wait
        counted: str | None = ballot["votes"].get(voter)
        return counted

    async def outcome(self) -> str | None:
        """Wait until it is decided."""
        ballot = await wait_until(
            self._session, self._key, lambda ballot: ballot is not None and ballot["is_decided"]
        )
        outcome: str | None = ballot["outcome"]
        return outcome

    def _count(self, ballot: Any, voter: str, choice: str) -> Any:
        if ballot["is_decided"]:
            return ballot
        votes = {voter: choice} | ballot["votes"]
        leader, count = Counter(votes.values()).most_common(1)[0]
        has_majority = count > self._voters / 2
        return {
            "votes": votes,
            "is_decided": has_majority or len(votes) >= self._voters,
            "outcome": leader if has_majority else None,
        }


async def take_part(agent_id: str, session_id: str) -> None:
    async with SharedContextClient(agent_id=agent_id) as client:
        session = client.session(session_id)
        mine = {agent_id: await propose(agent_id)}
        await session.memory.set("proposals", mine, scope="shared", mode="merge")
        await Barrier(session, "proposed", len(AGENTS)).wait()
        proposals = (await session.memory.get("proposals", scope="shared")).value
        assert isinstance(proposals, dict)
        vote = Vote(session, "database", len(AGENTS))
        choice = await decide(agent_id, {name: str(what) for name, what in proposals.items()})
        counted = await vote.cast(agent_id, choice)
        outcome = await vote.outcome()
        print(f"{agent_id} saw {len(proposals)} proposals, voted {counted}; outcome: {outcome}")


async def main() -> None:
    async with SharedContextClient(agent_id="chair") as chair:
        created = await chair.create_session("Choose a database")
        async with asyncio.TaskGroup() as agents:
            for agent_id in AGENTS:
                agents.create_task(take_part(agent_id, created.session_id))


if __name__ == "__main__":
    asyncio.run(main())
