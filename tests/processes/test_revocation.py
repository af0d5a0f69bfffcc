"""What ends a credential, in whichever process, ends what waits by it in the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from shared_context_server.auth.identity import Identity
from shared_context_server.models import Permission
from shared_context_server.settings import Settings
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import open_storage
from tests.cli.conftest import PATIENCE_S, Serve, ServerProcess
from tests.transport.generated import BOTH, ENVELOPE, MODERN

READ_WRITE = [Permission.READ, Permission.WRITE]
FOREVER_S = 600  # far longer than the test waits
LEASE_WAIT_S = 120  # the most that is allowed
LIFE = timedelta(seconds=2)
Waiting = Callable[[httpx.AsyncClient, str], Awaitable[str]]


async def wait_for_messages(http: httpx.AsyncClient, session_id: str) -> str:
    arguments = {"session_id": session_id, "timeout_seconds": FOREVER_S}
    return (await http.post("/mcp/tool/wait_for_messages", json=arguments)).text


async def wait_for_lease(http: httpx.AsyncClient, session_id: str) -> str:
    arguments = {"session_id": session_id, "name": "held", "wait_seconds": LEASE_WAIT_S}
    return (await http.post("/mcp/tool/acquire_lease", json=arguments)).text


async def follow_events(http: httpx.AsyncClient, session_id: str) -> str:
    return (await http.get("/events", params={"session_id": session_id})).text


async def listen(http: httpx.AsyncClient, session_id: str) -> str:
    method = "subscriptions/listen"
    notifications = {"resourceSubscriptions": [f"session://{session_id}"]}
    params = {"_meta": ENVELOPE, "notifications": notifications}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"accept": BOTH, "mcp-protocol-version": MODERN, "mcp-method": method}
    return (await http.post("/mcp", json=body, headers=headers)).text


WAITING: list[Waiting] = [wait_for_messages, wait_for_lease, follow_events, listen]


@asynccontextmanager
async def open_identity(server: ServerProcess) -> AsyncIterator[Identity]:
    """The keys of the server's data dir, in this process."""
    secrets: dict[str, Any] = {name.lower(): SecretStr(v) for name, v in server.secrets.items()}
    settings = Settings(data_dir=server.data_dir, **secrets)
    async with open_storage(settings) as store:
        yield Identity(store, settings)


async def make_session(server: ServerProcess) -> str:
    """A session with a lease that nobody releases."""
    headers = {"X-API-Key": server.secrets["API_KEY"], "X-Agent-ID": "alice"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE_S) as alice:
        made = await alice.post("/mcp/tool/create_session", json={"purpose": "test"})
        session_id: str = made.json()["session_id"]
        lease = {"session_id": session_id, "name": "held", "ttl_seconds": 3600}
        assert (await alice.post("/mcp/tool/acquire_lease", json=lease)).json()["acquired"]
        return session_id


async def count_waiting(server: ServerProcess) -> int:
    headers = {"X-API-Key": server.secrets["ADMIN_API_KEY"]}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE_S) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    [count] = [line.split()[-1] for line in lines if line.startswith("mcp_waiters ")]
    return int(float(count))


@pytest.mark.parametrize("end", ["token revoked", "key revoked", "key rotated", "key expired"])
async def test_what_waits_by_a_credential_ends_with_it_in_every_process(
    serve: Serve, end: str
) -> None:
    with serve() as server:
        session_id = await make_session(server)
        async with open_identity(server) as identity:
            expires_at = utc_now() + LIFE if end == "key expired" else None
            record, key = await identity.keys.create("bob", READ_WRITE, expires_at=expires_at)
            headers = {"X-API-Key": key}
            if end == "token revoked":
                connection = await identity.authenticate_headers(
                    authorization=None, api_key=key, agent_id=None, agent_type=None
                )
                issued = await identity.authenticate(
                    connection=connection,
                    agent_id="bob",
                    agent_type=None,
                    api_key=None,
                    requested_permissions=READ_WRITE,
                )
                headers = {"Authorization": f"Bearer {issued.token}"}
            async with (
                httpx.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE_S) as http,
                asyncio.timeout(PATIENCE_S),
            ):
                waits = [asyncio.create_task(wait(http, session_id)) for wait in WAITING]
                while end != "key expired" and await count_waiting(server) < len(WAITING):
                    assert not any(wait.done() for wait in waits)
                if end == "token revoked":
                    caller = await identity.resolve(issued.token, connection)
                    await identity.revoke(caller, None)
                elif end == "key revoked":
                    assert await identity.keys.revoke(record.id)
                elif end == "key rotated":
                    await identity.keys.rotate(record.id, overlap=timedelta())
                *calls, events, told = await asyncio.gather(*waits)
    for call in calls:
        assert json.loads(call)["code"] == "UNAUTHENTICATED"
    assert "event: message" not in events
    assert "event: credential_ended" in events
    assert "ResourceUpdated" not in told
    assert "UNAUTHENTICATED" in told
