"""A barrier lets nobody through before all have come."""

from __future__ import annotations

import asyncio

from shared_context_client import Session
from shared_context_client.patterns import Barrier, wait_until
from tests.client.conftest import PATIENCE_S, Fault, Relay, create_session, make_client

AGENTS = 6
ROUNDS = 4
QUIET_S = 0.5  # for something that must not happen


async def test_nobody_is_released_before_all_have_arrived(server_url: str) -> None:
    """They come one after the other, each round in another order."""
    arrived = [0] * ROUNDS

    async def take_part(n: int, session_id: str) -> None:
        async with make_client(server_url, f"agent-{n}") as client:
            session = client.session(session_id)
            for round_n in range(ROUNDS):
                name = f"round {round_n}"
                await until_count(session, name, (n + round_n) % AGENTS)
                arrived[round_n] += 1
                await Barrier(session, name, AGENTS).wait()
                assert arrived[round_n] == AGENTS

    async with asyncio.timeout(PATIENCE_S), make_client(server_url) as client:
        session_id = await create_session(client)
        async with asyncio.TaskGroup() as agents:
            for n in range(AGENTS):
                agents.create_task(take_part(n, session_id))


async def test_who_comes_first_waits_for_the_last(server_url: str) -> None:
    async with make_client(server_url, "ann") as ann, make_client(server_url, "ben") as ben:
        session_id = await create_session(ann)
        waiting = asyncio.create_task(Barrier(ann.session(session_id), "go", 2).wait())
        await until_count(ben.session(session_id), "go", 1)
        await asyncio.wait([waiting], timeout=QUIET_S)
        assert not waiting.done()
        async with asyncio.timeout(PATIENCE_S):
            await Barrier(ben.session(session_id), "go", 2).wait()
            await waiting


async def test_an_agent_that_comes_again_counts_once(relay: Relay, server_url: str) -> None:
    """Its answers are lost, so its client repeats them, and then it is started again."""
    async with make_client(relay.url, "ann") as ann, make_client(server_url, "ben") as ben:
        session = ben.session(await create_session(ben))
        relay.faults.extend([Fault.LOSE_ANSWER] * 3)
        first = asyncio.create_task(Barrier(ann.session(session.id), "go", 3).wait())
        await until_count(session, "go", 1)
        async with make_client(server_url, "ann") as again:
            second = asyncio.create_task(Barrier(again.session(session.id), "go", 3).wait())
            await asyncio.wait([first, second], timeout=QUIET_S)
            assert (await session.memory.get("barrier:go", scope="shared")).value == 1
            assert len(relay.lines("/mcp/tool/set_memory")) > 1
            first.cancel()
            second.cancel()
            await asyncio.wait([first, second])


async def until_count(session: Session, name: str, count: int) -> None:
    """So many have arrived, or more."""
    async with asyncio.timeout(PATIENCE_S):
        await wait_until(session, f"barrier:{name}", lambda value: (value or 0) >= count)
