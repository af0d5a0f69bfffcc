"""Writes are taken while the server is away, and made once, in order, when it is back."""

from __future__ import annotations

import asyncio

import pytest

from shared_context_client import (
    Breaker,
    NotSent,
    OutboxFull,
    Retries,
    ServerUnavailable,
    SessionClosed,
    SharedContextClient,
)
from tests.client.conftest import (
    PATIENCE_S,
    Fault,
    Relay,
    RestartableServer,
    create_session,
    make_client,
)

HASTY = {"retries": Retries(deadline_s=0), "breaker": Breaker(open_s=0.1, longest_open_s=0.2)}


async def contents(client: SharedContextClient, session_id: str) -> list[str]:
    page = await client.get_messages(session_id, after_seq=0, limit=1000)
    return [message.content for message in page.messages]


async def test_what_was_written_while_the_server_was_away_comes_in_order(
    own_server: RestartableServer,
) -> None:
    async with make_client(own_server.url, **HASTY) as client:
        session_id = await create_session(client)
        async with client.outbox(drain_s=PATIENCE_S) as outbox:
            before = await outbox.add_message(session_id, "0")
            own_server.stop()
            with pytest.raises(ServerUnavailable):
                await client.add_message(session_id, "lost")
            later = [outbox.add_message(session_id, str(n)) for n in range(1, 21)]
            kept = outbox.set_memory("done", 20, session_id=session_id)
            assert len(outbox) == 21
            await asyncio.to_thread(own_server.start)
            await outbox.flush(PATIENCE_S)
            assert len(outbox) == 0
        assert before.seq == 1
        assert [(await answer).seq for answer in later] == list(range(2, 22))
        assert (await kept).version == 1
        assert await contents(client, session_id) == [str(n) for n in range(21)]


async def test_a_lost_answer_doubles_nothing(relay: Relay) -> None:
    async with make_client(relay.url, **HASTY) as client:
        session_id = await create_session(client)
        async with client.outbox(drain_s=PATIENCE_S) as outbox:
            relay.faults += [Fault.LOSE_ANSWER, Fault.HANG_UP, Fault.LOSE_ANSWER]
            for n in range(3):
                outbox.add_message(session_id, str(n))
        assert await contents(client, session_id) == ["0", "1", "2"]


async def test_a_refused_write_fails_alone(client: SharedContextClient) -> None:
    closed, session_id = await create_session(client), await create_session(client)
    await client.close_session(closed)
    async with client.outbox() as outbox:
        refused = outbox.add_message(closed, "too late")
        taken = outbox.add_message(session_id, "in time")
    assert taken.result().seq == 1
    with pytest.raises(SessionClosed):
        await refused


async def test_a_full_outbox_says_so_and_what_is_left_can_be_sent_later(relay: Relay) -> None:
    async with make_client(relay.url, **HASTY) as client:
        session_id = await create_session(client)
        await relay.stop()
        async with client.outbox(max_writes=2, drain_s=0.1) as outbox:
            first = outbox.add_message(session_id, "1")
            outbox.add_message(session_id, "2")
            with pytest.raises(OutboxFull):
                outbox.add_message(session_id, "3")
        with pytest.raises(NotSent):
            await first
        with pytest.raises(NotSent):
            outbox.add_message(session_id, "after the end")
        await relay.start()
        assert [write.arguments["content"] for write in outbox.unsent] == ["1", "2"]
    async with make_client(relay.url) as later:
        for _ in range(2):
            for write in outbox.unsent:
                await getattr(later, write.tool)(**write.arguments)
        assert await contents(later, session_id) == ["1", "2"]
