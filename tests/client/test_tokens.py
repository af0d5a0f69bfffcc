"""A key is traded for a token, which is renewed in time, once for all who need it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared_context_client import PermissionDenied, SharedContextClient, Unauthenticated
from tests.client.conftest import (
    API_KEY,
    Relay,
    RestartableServer,
    answer_bytes,
    create_session,
    make_client,
    relay_to,
)

AUTHENTICATE = "/mcp/tool/authenticate_agent"
REFRESH = "/mcp/tool/refresh_token"
LIFE_S = 60  # the shortest that the server gives


@pytest.fixture
async def short_lived(tmp_path: Path) -> AsyncIterator[Relay]:
    """To a server whose tokens last for a minute."""
    server = RestartableServer(tmp_path, JWT_EXPIRES_IN=str(LIFE_S))
    try:
        await asyncio.to_thread(server.start)
        async with relay_to(server.url) as relay:
            yield relay
    finally:
        server.stop()


def pass_time(client: SharedContextClient, seconds: float) -> None:
    """As if the token had been got so long ago."""
    credentials = client._connection._credentials
    credentials._renew_at -= seconds
    credentials._ends_at -= seconds


async def test_a_client_without_a_key_is_told_how_to_give_it_one(relay: Relay) -> None:
    async with make_client(relay.url, api_key=None) as client:
        with pytest.raises(Unauthenticated, match=r"api_key=.*SCS_API_KEY"):
            await client.list_sessions()
        with pytest.raises(Unauthenticated, match="auth_token"):
            await client.list_sessions(auth_token="wrong")


async def test_a_token_takes_the_place_of_the_key(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        issued = await client.authenticate(permissions=["read"])
        assert issued.agent_id == "alice"
        with pytest.raises(PermissionDenied):
            await client.create_session("not with this token")


async def test_a_token_is_renewed_before_it_expires_once_for_all(short_lived: Relay) -> None:
    async with make_client(short_lived.url) as client:
        await client.authenticate()
        pass_time(client, LIFE_S * 0.5)
        await client.list_sessions()
        assert len(short_lived.lines(AUTHENTICATE)) == 1
        pass_time(client, LIFE_S * 0.4)
        await asyncio.gather(*(client.list_sessions() for _ in range(20)))
        assert len(short_lived.lines(AUTHENTICATE)) == 2


async def test_a_token_that_is_refused_is_renewed_once_for_all(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        issued = await client.authenticate()
        await client.revoke_token()
        session_id = await create_session(client)
        async with make_client(relay.url, token=issued.token) as other:
            with pytest.raises(Unauthenticated):
                await other.list_sessions()
        await client.revoke_token()
        relay.requests.clear()
        await asyncio.gather(*(client.add_message(session_id, "again") for _ in range(10)))
        assert len(relay.lines(AUTHENTICATE)) == 1


async def test_a_given_token_is_renewed_by_itself_while_it_is_good(short_lived: Relay) -> None:
    async with make_client(short_lived.url) as issuer:
        token = (await issuer.authenticate()).token
    async with make_client(short_lived.url, token=token) as client:
        await client.list_sessions()
        assert len(short_lived.lines(REFRESH)) == 0
        pass_time(client, LIFE_S * 0.9)
        await client.list_sessions()
        assert len(short_lived.lines(REFRESH)) == 1


async def test_the_old_token_serves_on_while_it_cannot_be_renewed(short_lived: Relay) -> None:
    limited = b'{"code":"RATE_LIMITED","error":"","details":{},"retryable":true}'
    async with make_client(short_lived.url) as client:
        await client.authenticate()
        pass_time(client, LIFE_S * 0.9)
        short_lived.faults.append(answer_bytes("429 Too Many", limited, "Retry-After: 600"))
        await client.list_sessions()
        assert len(short_lived.lines(AUTHENTICATE)) == 2


async def test_a_renewal_that_is_cancelled_is_made_by_the_next(short_lived: Relay) -> None:
    async with make_client(short_lived.url) as client:
        await client.authenticate()
        pass_time(client, LIFE_S * 0.9)
        first = asyncio.create_task(client.list_sessions())
        second = asyncio.create_task(client.list_sessions())
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).sessions == []


async def test_without_a_key_or_a_name_there_is_nothing_to_trade(server_url: str) -> None:
    async with SharedContextClient(server_url, api_key=API_KEY) as nameless:
        with pytest.raises(Unauthenticated) as missing:
            await nameless.authenticate()
    assert missing.value.details["field"] == "agent_id"
