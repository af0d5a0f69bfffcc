"""Leases between two server processes that share one file."""

from __future__ import annotations

import asyncio

import httpx

from tests.cli.conftest import Serve
from tests.processes.test_load import call, http_of

ROUNDS = 10
PATIENCE_S = 60


async def count_up(client: httpx.AsyncClient, tokens: list[int]) -> None:
    """Read, add one, write: right only for one at a time, which the lease sees to."""
    for _ in range(ROUNDS):
        lease = await call(client, "acquire_lease", name="counter", wait_seconds=PATIENCE_S)
        assert lease["acquired"] is True
        tokens.append(lease["fencing_token"])
        counter = {"key": "counter", "scope": "shared"}
        value = (await call(client, "get_memory", **counter))["value"]
        fenced = {"lease": "counter", "fencing_token": lease["fencing_token"]}
        await call(client, "set_memory", **counter, value=value + 1, **fenced)
        released = await call(
            client, "release_lease", name="counter", fencing_token=lease["fencing_token"]
        )
        assert released["released"] is True


async def hand_over_by_expiry(first: httpx.AsyncClient, second: httpx.AsyncClient) -> None:
    """Nobody releases: the second's own clock tells it, and the first's late write is refused."""
    stale = await call(first, "acquire_lease", name="deploy", ttl_seconds=1)
    taken = await call(second, "acquire_lease", name="deploy", wait_seconds=PATIENCE_S)
    assert taken["fencing_token"] == stale["fencing_token"] + 1
    write = {"key": "k", "value": 1, "lease": "deploy"}
    late = write | {"fencing_token": stale["fencing_token"]}
    refused = await first.post("/mcp/tool/set_memory", json=late)
    assert (refused.status_code, refused.json()["code"]) == (409, "LEASE_LOST")
    await call(second, "set_memory", **write, fencing_token=taken["fencing_token"])


async def test_two_processes_contend_and_no_update_is_lost(serve: Serve) -> None:
    with serve() as one, serve() as two:
        async with (
            http_of(one, "a") as a,
            http_of(one, "b") as b,
            http_of(two, "c") as c,
            http_of(two, "d") as d,
            asyncio.timeout(PATIENCE_S),
        ):
            await hand_over_by_expiry(a, c)
            await call(a, "set_memory", key="counter", value=0, scope="shared")
            tokens: list[int] = []
            await asyncio.gather(*(count_up(client, tokens) for client in (a, b, c, d)))
            # The answers of two processes may arrive in another order than they were given in.
            assert sorted(tokens) == list(range(1, 4 * ROUNDS + 1))
            total = await call(d, "get_memory", key="counter", scope="shared")
            assert total["value"] == 4 * ROUNDS
