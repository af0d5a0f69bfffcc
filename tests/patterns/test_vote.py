"""Each voter counts once, and all see the same outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from examples.patterns.barrier_and_vote import Vote
from shared_context_client import Session
from tests.client.conftest import PATIENCE_S, Fault, Relay, create_session, make_client


@pytest.fixture
async def session(server_url: str) -> AsyncIterator[Session]:
    async with make_client(server_url) as client:
        yield client.session(await create_session(client))


async def ballot(session: Session) -> Any:
    return (await session.memory.get("vote:v", scope="shared")).value


async def cast_from(url: str, session_id: str, voter: str, choice: str) -> str | None:
    """Vote from a client of the voter's own, and wait for the outcome."""
    async with make_client(url, voter) as client:
        vote = Vote(client.session(session_id), "v", 9)
        await vote.cast(voter, choice)
        return await vote.outcome()


async def test_all_votes_of_the_same_moment_count_although_answers_are_lost(
    session: Session, relay: Relay
) -> None:
    relay.faults.extend([Fault.LOSE_ANSWER, Fault.LOSE_ANSWER, Fault.HANG_UP] * 3)
    choices = {f"voter-{n}": "ab"[n % 2] for n in range(8)}  # 4 to 4: all are needed
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as voters:
        waiting = [
            voters.create_task(cast_from(relay.url, session.id, voter, choice))
            for voter, choice in choices.items()
        ]
        await Vote(session, "v", 9).cast("last", "a")
    assert {task.result() for task in waiting} == {"a"}
    found = await ballot(session)
    assert found["outcome"] == "a"
    assert found["votes"].items() <= (choices | {"last": "a"}).items()


async def test_a_voter_counts_once_and_with_its_first_choice(session: Session) -> None:
    vote = Vote(session, "v", 3)
    assert await vote.cast("ann", "a") == "a"
    assert await vote.cast("ann", "a") == "a"
    assert await vote.cast("ann", "b") == "a"
    found = await ballot(session)
    assert (found["votes"], found["is_decided"]) == ({"ann": "a"}, False)


async def test_a_vote_that_comes_too_late_changes_nothing(session: Session) -> None:
    vote = Vote(session, "v", 3)
    await vote.cast("ann", "a")
    await vote.cast("ben", "a")
    before = await ballot(session)
    assert await vote.cast("cleo", "b") is None
    assert await ballot(session) == before
    assert await asyncio.wait_for(vote.outcome(), PATIENCE_S) == "a"


async def test_without_a_majority_there_is_no_outcome(session: Session) -> None:
    vote = Vote(session, "v", 2)
    waiting = asyncio.create_task(vote.outcome())
    await vote.cast("ann", "a")
    await vote.cast("ben", "b")
    assert await asyncio.wait_for(waiting, PATIENCE_S) is None
