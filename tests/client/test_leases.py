"""A lease is renewed while it is held, known to be lost when it is, and given back."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared_context_client import HeldLease, LeaseHeld, LeaseLost, SharedContextClient
from tests.client.conftest import PATIENCE_S, Relay, create_session, make_client


async def until_lost(lease: HeldLease) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while lease.is_held:  # noqa: ASYNC110 - it ends by a clock, which tells nobody
            await asyncio.sleep(0.02)


async def test_one_holds_it_and_the_others_are_told_who(
    server_url: str, client: SharedContextClient
) -> None:
    session = client.session(await create_session(client))
    async with make_client(server_url, "bob") as bob:
        theirs = bob.session(session.id)
        async with session.lease("deploy") as lease:
            assert lease.is_held
            assert (await session.leases()).leases[0].fencing_token == lease.fencing_token
            with pytest.raises(LeaseHeld) as held:
                async with theirs.lease("deploy"):
                    pass
            assert held.value.details["holder"] == "alice"
            waiting = asyncio.create_task(wait_and_leave(theirs.lease("deploy", wait_seconds=30)))
        lease_after = await waiting
        assert lease_after.fencing_token > lease.fencing_token
    assert not lease.is_held
    assert (await session.leases()).leases == []


async def wait_and_leave(context) -> HeldLease:  # type: ignore[no-untyped-def]
    async with context as lease:
        return lease  # type: ignore[no-any-return]


async def test_it_is_renewed_in_the_background(client: SharedContextClient) -> None:
    session = client.session(await create_session(client))
    started = time.monotonic()
    async with session.lease("plan", ttl_seconds=1) as lease:
        first = (await session.leases()).leases[0].expires_at
        async with asyncio.timeout(PATIENCE_S):
            while (await session.leases()).leases[0].expires_at <= first:
                pass
        while time.monotonic() < started + 1.5:
            lease.check()
            await session.add("still mine", lease=lease)
        await session.memory.set("plan", 1, lease=lease)


async def test_a_write_under_a_lost_lease_is_refused(
    server_url: str, client: SharedContextClient
) -> None:
    session = client.session(await create_session(client))
    async with session.lease("plan", ttl_seconds=1) as lease:
        await client.release_lease("plan", lease.fencing_token, session_id=session.id)
        async with make_client(server_url, "bob") as bob, bob.session(session.id).lease("plan"):
            with pytest.raises(LeaseLost):
                await session.add("mine?", lease=lease)
            await until_lost(lease)
            with pytest.raises(LeaseLost):
                lease.check()


async def test_a_lease_that_had_to_be_taken_anew_is_lost_and_given_back(
    client: SharedContextClient,
) -> None:
    session = client.session(await create_session(client))
    async with session.lease("plan", ttl_seconds=1) as lease:
        await client.release_lease("plan", lease.fencing_token, session_id=session.id)
        await until_lost(lease)  # by its renewal, which comes before its end
        assert (await session.leases()).leases == []


async def test_while_the_server_is_away_it_ends_by_our_own_clock(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        held = client.lease("server-wide", ttl_seconds=1)
        async with held as lease:
            await relay.stop()
            await until_lost(lease)
            await relay.start()


async def test_it_is_given_back_when_the_block_fails_or_is_cancelled(
    client: SharedContextClient,
) -> None:
    session = client.session(await create_session(client))

    async def hold() -> None:
        async with session.lease("plan"):
            entered.set()
            await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        async with session.lease("plan"):
            raise ZeroDivisionError
    assert (await session.leases()).leases == []
    entered = asyncio.Event()
    holding = asyncio.create_task(hold())
    await asyncio.wait_for(entered.wait(), PATIENCE_S)
    holding.cancel()
    await asyncio.wait([holding])
    assert (await session.leases()).leases == []
