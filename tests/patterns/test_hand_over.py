"""Turns are taken in the order of the chain, whatever order the agents are started in."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest

from examples.patterns.hand_over import CHAIN, run_chain, take_turn
from tests.client.conftest import API_KEY, PATIENCE_S, create_session, make_client


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, server_url: str) -> None:
    """The example makes its own clients."""
    monkeypatch.setenv("SCS_URL", server_url)
    monkeypatch.setenv("SCS_API_KEY", API_KEY)


@pytest.mark.parametrize("order", list(permutations(CHAIN[:-1])), ids="-".join)
async def test_each_answers_the_one_before_it(order: tuple[str, ...], server_url: str) -> None:
    async with asyncio.timeout(PATIENCE_S), make_client(server_url, "owner") as owner:
        session = owner.session(await run_chain(owner, list(order)))
        messages = (await session.messages()).messages
    assert [message.sender for message in messages] == ["owner", *CHAIN[:-1]]
    answered = [message.parent_message_id for message in messages]
    assert answered == [None, *(message.id for message in messages[:-1])]


async def test_an_agent_killed_behind_its_answer_answers_once(server_url: str) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        make_client(server_url, "owner") as owner,
        make_client(server_url, "planner") as before,
    ):
        session = owner.session(await create_session(owner))
        asked = await session.add("@planner Please: a page.")
        await before.session(session.id).add(
            "@writer Another plan.", idempotency_key=f"answer to {asked.message_id}"
        )
        await take_turn("planner", "writer", session.id)  # it was killed before mark_read
        messages = (await session.messages()).messages
        assert [message.content for message in messages] == [
            "@planner Please: a page.",
            "@writer Another plan.",
        ]
