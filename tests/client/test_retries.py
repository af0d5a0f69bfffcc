"""What is sent again, and what is not; never is anything done twice."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared_context_client import (
    Breaker,
    CircuitOpen,
    ClockNotRunning,
    RateLimited,
    Retries,
    ServerUnavailable,
    SharedContextClient,
    Unavailable,
)
from tests.client.conftest import (
    Fault,
    Relay,
    RestartableServer,
    answer_bytes,
    create_session,
    make_client,
)

UNAVAILABLE = (
    b'{"success":false,"error":"The storage does not answer.","code":"UNAVAILABLE",'
    b'"details":{},"suggestion":"","retryable":true}'
)
RATE_LIMITED = UNAVAILABLE.replace(b"UNAVAILABLE", b"RATE_LIMITED")
ADD = "/mcp/tool/add_message"
CREATE = "/mcp/tool/create_session"


async def contents(client: SharedContextClient, session_id: str) -> list[str]:
    page = await client.get_messages(session_id, after_seq=0)
    return [message.content for message in page.messages]


async def test_a_server_that_is_busy_twice_is_asked_a_third_time(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        relay.faults += [answer_bytes("503 Service Unavailable", UNAVAILABLE)] * 2
        assert (await client.add_message(session_id, "patience")).seq == 1
        assert len(relay.lines(ADD)) == 3


@pytest.mark.parametrize(
    "status, body", [("429 Too Many Requests", RATE_LIMITED), ("503 Service Unavailable", b"")]
)
async def test_retry_after_is_waited_for(relay: Relay, status: str, body: bytes) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        relay.faults.append(answer_bytes(status, body, "Retry-After: 1"))
        started = time.monotonic()
        await client.add_message(session_id, "later")
        assert time.monotonic() - started >= 1


async def test_a_longer_wait_than_the_deadline_is_not_begun(relay: Relay) -> None:
    async with make_client(relay.url, retries=Retries(deadline_s=5)) as client:
        relay.faults.append(answer_bytes("429 Too Many", RATE_LIMITED, "Retry-After: 60"))
        async with asyncio.timeout(30):
            with pytest.raises(RateLimited) as refused:
                await client.list_sessions()
        assert refused.value.retry_after_s == 60


async def test_a_write_whose_answer_was_lost_is_repeated_and_happens_once(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        relay.faults += [Fault.LOSE_ANSWER, Fault.LOSE_ANSWER]
        added = await client.add_message(session_id, "once")
        assert added.duplicate
        assert len(relay.lines(ADD)) == 3
        assert await contents(client, session_id) == ["once"]
        relay.faults.append(Fault.LOSE_ANSWER)
        await client.set_memory("count", 5, mode="increment", session_id=session_id)
        assert (await client.get_memory("count", session_id=session_id)).value == 5


async def test_what_may_have_happened_and_is_not_safe_twice_is_told(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        for fault in (Fault.LOSE_ANSWER, answer_bytes("502 Bad Gateway")):
            relay.faults.append(fault)
            relay.requests.clear()
            with pytest.raises(ServerUnavailable) as unknown:
                await client.create_session("maybe")
            assert unknown.value.is_outcome_unknown
            assert len(relay.lines(CREATE)) == 1


async def test_what_was_surely_not_done_is_repeated_even_if_it_is_not_safe_twice(
    relay: Relay,
) -> None:
    async with make_client(relay.url) as client:
        relay.faults += [
            answer_bytes("503 Service Unavailable", UNAVAILABLE),
            answer_bytes("429 Too Many Requests", RATE_LIMITED),
        ]
        await client.create_session("third time lucky")
        assert len(relay.lines(CREATE)) == 3


async def test_a_refusal_is_not_repeated(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        with pytest.raises(Exception, match="SESSION_NOT_FOUND"):
            await client.get_session("session_0000000000000000")
        with pytest.raises(ClockNotRunning):  # it starts when somebody starts it
            await client.get_temperature()
        assert len(relay.requests) == 2


async def test_the_deadline_ends_it(relay: Relay) -> None:
    relay.faults += [answer_bytes("503 Service Unavailable", UNAVAILABLE)] * 500
    async with make_client(relay.url, retries=Retries(deadline_s=1)) as client:
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable):
                await client.list_sessions()
        assert len(relay.lines("/mcp/tool/list_sessions")) > 1


async def test_a_call_that_opens_the_circuit_raises_the_failure_it_met(relay: Relay) -> None:
    relay.faults += [answer_bytes("503 Service Unavailable", UNAVAILABLE)] * 500
    breaker = Breaker(failures=2, open_s=60)
    retries = Retries(deadline_s=5, first_pause_s=0)
    async with make_client(relay.url, retries=retries, breaker=breaker) as client:
        with pytest.raises(Unavailable):
            await client.list_sessions()
        with pytest.raises(CircuitOpen):  # this one is not sent
            await client.list_sessions()
        assert len(relay.lines("/mcp/tool/list_sessions")) == 2


async def test_a_call_survives_a_restart_of_the_server(own_server: RestartableServer) -> None:
    async with make_client(own_server.url, retries=Retries(deadline_s=30)) as client:
        session_id = await create_session(client)
        own_server.stop()
        adding = asyncio.create_task(client.add_message(session_id, "while you were out"))
        await asyncio.to_thread(own_server.start)
        assert (await adding).seq == 1
