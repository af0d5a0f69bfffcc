"""Many calls in few requests, each with its own outcome."""

from __future__ import annotations

from contextlib import suppress

import pytest

from shared_context_client import (
    MemoryNotFound,
    NotSent,
    ServerUnavailable,
    SharedContextClient,
)
from tests.client.conftest import Fault, Relay, create_session, make_client

BATCH = "/mcp/batch"


async def test_each_call_has_its_result_or_its_error(client: SharedContextClient) -> None:
    session_id = await create_session(client)
    async with client.batch() as batch:
        added = batch.add_message(session_id, "one")
        missing = batch.get_memory("nothing of this name")
        read = batch.get_messages(session_id)
        with pytest.raises(NotSent):
            _ = read.result
    assert added.result.seq == 1
    assert added.error is None
    assert isinstance(missing.error, MemoryNotFound)
    assert missing.error.status == 404
    with pytest.raises(MemoryNotFound):
        _ = missing.result
    assert [message.content for message in read.result.messages] == ["one"]


async def test_more_than_a_request_holds_are_split_in_order(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        async with client.batch() as batch:
            added = [batch.add_message(session_id, f"message {n}") for n in range(250)]
        assert [item.result.seq for item in added] == list(range(1, 251))
        assert len(relay.lines(BATCH)) == 3


async def test_a_request_stays_below_the_body_limit(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        async with client.batch() as batch:
            added = [batch.add_message(session_id, "x" * 100_000) for _ in range(20)]
        assert [item.result.seq for item in added] == list(range(1, 21))
        assert len(relay.lines(BATCH)) == 3


async def test_a_batch_whose_answer_was_lost_doubles_nothing(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        relay.faults.append(Fault.LOSE_ANSWER)
        async with client.batch() as batch:
            added = [batch.add_message(session_id, f"message {n}") for n in range(10)]
        assert all(item.result.duplicate for item in added)
        assert (await client.get_messages(session_id)).total_count == 10


async def test_a_batch_that_is_not_safe_twice_is_sent_once(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        relay.faults.append(Fault.LOSE_ANSWER)
        batch = client.batch()
        created = batch.create_session("maybe")
        with pytest.raises(ServerUnavailable) as unknown:
            await batch.send()
        assert unknown.value.is_outcome_unknown
        assert created.error is unknown.value
        assert len(relay.lines(BATCH)) == 1


async def test_nothing_is_sent_when_the_block_fails(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        with suppress(ZeroDivisionError):
            async with client.batch() as batch:
                batch.add_message("session", "text")
                raise ZeroDivisionError
    assert relay.requests == []


async def test_an_empty_batch_asks_nothing(relay: Relay) -> None:
    async with make_client(relay.url) as client, client.batch():
        pass
    assert relay.requests == []
