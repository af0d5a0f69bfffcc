"""Short traffic, each aimed at one promise: the rounds in which planted bugs are looked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from prove.clients import REST, Agent
from prove.followers import EventReader

WAIT_S = 6

_RECORD = """
    INSERT INTO idempotency (session_id, agent_id, key, kind, fingerprint, answer, created_at)
    VALUES ($1, $2, $3, 'add_message', '', '{}', 0)"""
_IS_WAITED_FOR = """
    SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid)))"""


async def _create(agent: Agent, purpose: str) -> dict[str, Any]:
    made = await agent.insist("create_session", purpose=purpose)
    return {"session_id": made.answer["session_id"]}


def _text(agent: Agent) -> str:
    return f"text {agent.new_key()}"


async def write_and_read(agents: Sequence[Agent]) -> None:
    """Each agent reads at once what it was told is written."""
    place = await _create(agents[0], "write and read")

    async def act(agent: Agent) -> None:
        for _ in range(4):
            await agent.call("add_message", way=REST, content=_text(agent), **place)
            await agent.call("get_messages", way=REST, limit=20, **place)

    await asyncio.gather(*map(act, agents))


async def write_and_be_refused(agents: Sequence[Agent]) -> None:
    """Writes that are repeated, or refused for a lease, stand between others."""
    place = await _create(agents[0], "write and be refused")

    async def act(agent: Agent) -> None:
        for _ in range(3):
            key = agent.new_key()
            await agent.call("add_message", content=key, idempotency_key=key, **place)
            await agent.call("add_message", content=key, idempotency_key=key, **place)
            fence: dict[str, Any] = {"lease": "nobody's", "fencing_token": 1}
            await agent.call("add_message", content=_text(agent), **fence, **place)

    await asyncio.gather(*map(act, agents))


async def wait_while_others_write(agents: Sequence[Agent]) -> None:
    """Many waiting calls, each beside one write that comes just as it begins to wait."""
    places = await asyncio.gather(*(_create(agents[0], f"wait {n}") for n in range(8)))
    # A waiter that stays, so that the server listens to its store all the time.
    staying = asyncio.create_task(_wait(agents[0], await _create(agents[0], "stay"), 0))

    async def act(number: int, place: dict[str, Any]) -> None:
        waiter, writer = agents[number % 3], agents[3 + number % 3]
        cursor = 0
        for turn in range(4):
            waiting = asyncio.create_task(_wait(waiter, place, cursor))
            await asyncio.sleep(waiter.chooser.uniform(0, 0.012))
            written = await writer.call("add_message", way=REST, content=_text(writer), **place)
            await waiting
            cursor = written.answer["seq"] if written.is_ok else cursor
            del turn

    await asyncio.gather(*(act(number, place) for number, place in enumerate(places)))
    staying.cancel()
    with suppress(asyncio.CancelledError):
        await staying


async def _wait(agent: Agent, place: dict[str, Any], cursor: int) -> None:
    await agent.call(
        "wait_for_messages", way=REST, after_seq=cursor, timeout_seconds=WAIT_S, **place
    )


async def write_twice_at_once(agents: Sequence[Agent]) -> None:
    """Each write is sent twice at the same time, as by a client that gave up too early."""
    place = await _create(agents[0], "write twice at once")

    async def act(agent: Agent) -> None:
        for _ in range(3):
            key = agent.new_key()
            await agent.insist_twice_at_once(
                "add_message", content=key, idempotency_key=key, **place
            )

    await asyncio.gather(*map(act, agents))


async def read_in_pages(agents: Sequence[Agent]) -> None:
    """A log of some pages, read by each agent from its begin to its end."""
    place = await _create(agents[0], "read in pages")
    for _ in range(8):
        await agents[0].call("add_message", content=_text(agents[0]), **place)

    async def act(agent: Agent) -> None:
        cursor, has_more = 0, True
        while has_more:
            page = await agent.call("get_messages", after_seq=cursor, limit=3, **place)
            has_more = page.is_ok and page.answer["has_more"]
            cursor = page.answer.get("next_after_seq", cursor)

    await asyncio.gather(*map(act, agents))


async def hand_a_lease_over(agents: Sequence[Agent]) -> None:
    """A lease goes from one agent to another and back; the first writes with its old token."""
    place = await _create(agents[0], "hand a lease over")
    first, second = agents[:2]
    name = {"name": "lease"}
    tokens: list[int] = []
    for agent in (first, second, first):
        taken = await agent.insist("acquire_lease", ttl_seconds=30, **name, **place)
        tokens.append(taken.answer["fencing_token"])
        if len(tokens) < 3:
            await agent.insist("release_lease", fencing_token=tokens[-1], **name, **place)
    for token in tokens:
        fence: dict[str, Any] = {"lease": "lease", "fencing_token": token}
        await first.call("add_message", content=_text(first), **fence, **place)
        await first.call("set_memory", key="k", value=token, scope="shared", **fence, **place)


async def count_beside_secrets(agents: Sequence[Agent]) -> None:
    """Some agents write to each other in private; the others count what they see."""
    place = await _create(agents[0], "count beside secrets")
    for number in range(6):
        private: dict[str, Any] = {}
        if number % 2:
            private = {"visibility": "private", "recipients": [agents[1].name]}
        await agents[0].call("add_message", content=_text(agents[0]), **private, **place)

    async def act(agent: Agent) -> None:
        await agent.call("get_messages", limit=20, **place)
        await agent.call("get_messages", after_seq=0, limit=20, **place)
        await agent.call("list_sessions", limit=20)

    await asyncio.gather(*map(act, agents))


async def let_entries_expire(agents: Sequence[Agent]) -> None:
    """Each agent stores something for a second and reads it before and after."""

    async def act(agent: Agent) -> None:
        key = agent.new_key()
        await agent.insist("set_memory", key=key, value=1, expires_in=1, idempotency_key=key)
        await agent.call("get_memory", key=key)
        await asyncio.sleep(1.05)
        await agent.call("get_memory", key=key)

    await asyncio.gather(*map(act, agents))


async def follow_everything(agents: Sequence[Agent]) -> None:
    """A write waits inside the database, with its id; later ones pass it, and one reads them all."""
    reader, held, *others = agents
    place = await _create(held, "follow everything")
    places = await asyncio.gather(*(_create(agent, "write past it") for agent in others))
    reading = asyncio.create_task(EventReader(reader, None).run())
    key = held.new_key()
    connection = await asyncpg.connect(held.run.database_url)
    transaction = connection.transaction()
    await transaction.start()
    # The write of this key takes its id, and then waits for what becomes of the record here.
    await connection.execute(_RECORD, place["session_id"], held.name, key)
    writing = asyncio.create_task(
        held.call("add_message", way=REST, content=key, idempotency_key=key, **place)
    )
    await _until_blocked(connection)

    async def act(agent: Agent, own: dict[str, Any]) -> None:
        for _ in range(2):
            await agent.call("add_message", way=REST, content=_text(agent), **own)

    await asyncio.gather(*(act(agent, own) for agent, own in zip(others, places, strict=True)))
    await asyncio.sleep(0.3)  # the reader is told of the later ones
    await transaction.rollback()
    await connection.close()
    await writing
    for agent, own in zip(others, places, strict=True):
        await agent.call("add_message", way=REST, content=_text(agent), **own)
    await asyncio.sleep(0.5)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading


async def _until_blocked(connection: asyncpg.Connection) -> None:
    """Until somebody waits for this connection's transaction, or for a second."""
    pid = connection.get_server_pid()
    for _ in range(100):
        if await connection.fetchval(_IS_WAITED_FOR, pid):
            return
        await asyncio.sleep(0.01)
