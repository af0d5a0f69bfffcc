"""A server that does not answer is left in peace, and found again."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared_context_client import Breaker, CircuitOpen, Retries, ServerUnavailable, State
from tests.client.conftest import PATIENCE_S, Fault, Relay, answer_bytes, make_client

ONCE = Retries(deadline_s=0)


async def test_the_circuit_opens_half_opens_and_closes(relay: Relay) -> None:
    changes: list[tuple[State, State]] = []
    async with make_client(
        relay.url,
        retries=ONCE,
        breaker=Breaker(failures=3, open_s=0.2, longest_open_s=0.2),
        on_state_change=lambda old, new: changes.append((old, new)),
    ) as client:
        await relay.stop()
        for _ in range(3):
            assert client.state is State.CLOSED
            with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:") as away:
                await client.list_sessions()
            assert not isinstance(away.value, CircuitOpen)
        assert client.state is State.OPEN
        with pytest.raises(CircuitOpen) as refused:
            await client.list_sessions()
        with pytest.raises(CircuitOpen):
            await client.wait_for_messages("session", timeout_seconds=60)
        assert refused.value.retry_after_s is not None
        assert 0 < refused.value.retry_after_s <= 0.2
        assert not refused.value.is_outcome_unknown

        await relay.start()
        deadline = time.monotonic() + PATIENCE_S
        while client.state is not State.CLOSED and time.monotonic() < deadline:
            try:
                await client.list_sessions()
            except CircuitOpen as exc:
                await asyncio.sleep(exc.retry_after_s or 0)
    assert changes[:1] == [(State.CLOSED, State.OPEN)]
    assert changes[-2:] == [(State.OPEN, State.HALF_OPEN), (State.HALF_OPEN, State.CLOSED)]


async def test_a_vain_look_opens_it_again_for_twice_as_long(relay: Relay) -> None:
    async with make_client(
        relay.url, retries=ONCE, breaker=Breaker(failures=1, open_s=0.2)
    ) as client:
        await relay.stop()
        with pytest.raises(ServerUnavailable):
            await client.list_sessions()
        waits = []
        while len(waits) < 3:
            with pytest.raises(CircuitOpen) as refused:
                await client.list_sessions()
            waits.append(refused.value.retry_after_s or 0)
            await asyncio.sleep(waits[-1])
        assert waits[0] <= 0.2 < waits[1] <= 0.4 < waits[2] <= 0.8


async def test_an_open_circuit_sends_nothing(relay: Relay) -> None:
    async with make_client(
        relay.url, retries=ONCE, breaker=Breaker(failures=1, open_s=60)
    ) as client:
        relay.faults.append(Fault.HANG_UP)
        with pytest.raises(ServerUnavailable):
            await client.list_sessions()
        relay.requests.clear()
        for _ in range(10):
            with pytest.raises(CircuitOpen):
                await client.list_sessions()
        assert relay.requests == []


async def test_one_looks_while_the_others_are_refused(relay: Relay) -> None:
    async with make_client(
        relay.url, retries=ONCE, breaker=Breaker(failures=1, open_s=0.1)
    ) as client:
        relay.faults.append(Fault.HANG_UP)
        with pytest.raises(ServerUnavailable) as away:
            await client.list_sessions()
        assert away.value.is_outcome_unknown
        await asyncio.sleep(0.1)  # for so long it is open
        outcomes = await asyncio.gather(
            *(client.list_sessions() for _ in range(5)), return_exceptions=True
        )
        assert [isinstance(outcome, CircuitOpen) for outcome in outcomes] == [False] + [True] * 4
        assert len(relay.lines("/ready")) == 1


async def test_refusals_are_answers(relay: Relay) -> None:
    limited = b'{"code":"RATE_LIMITED","error":"","details":{},"retryable":true}'
    async with make_client(relay.url, retries=ONCE, breaker=Breaker(failures=1)) as client:
        relay.faults.append(answer_bytes("429 Too Many Requests", limited))
        for _ in range(2):
            with pytest.raises(Exception, match=r"RATE_LIMITED|SESSION_NOT_FOUND"):
                await client.get_session("session_0000000000000000")
        assert client.state is State.CLOSED


async def test_a_cancelled_look_lets_the_next_one_look(relay: Relay) -> None:
    async with make_client(
        relay.url, retries=ONCE, breaker=Breaker(failures=1, open_s=0.1)
    ) as client:
        relay.faults.append(Fault.HANG_UP)
        with pytest.raises(ServerUnavailable):
            await client.list_sessions()
        await asyncio.sleep(0.1)  # for so long it is open
        looking = asyncio.create_task(client.list_sessions())
        await asyncio.sleep(0)
        assert client.state is State.HALF_OPEN
        looking.cancel()
        await asyncio.wait([looking])
        await client.list_sessions()
        assert client.state is State.CLOSED
