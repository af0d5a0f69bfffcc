"""What is refused when a session, an agent or the disk is full, and what goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.auth.connection import Connection
from shared_context_server.models import Caller
from shared_context_server.server import Server, open_server
from shared_context_server.services.disk import DiskReserve
from tests.settings import make_settings
from tests.storage.builders import make_caller

Settings = dict[str, Any]
Open = Callable[..., Awaitable["Hub"]]


class Hub:
    """A server's tools, called in process."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def call(self, tool: str, agent: str = "alice", /, **arguments: Any) -> dict[str, Any]:
        caller: Caller = make_caller(agent)
        outcome = await self.server.dispatcher.call(tool, arguments, Connection(caller))
        body = outcome.body if isinstance(outcome.body, dict) else {}
        return body or {"success": True, **_read(outcome.json())}

    async def create_session(self, agent: str = "alice") -> str:
        session_id: str = (await self.call("create_session", agent, purpose="p"))["session_id"]
        return session_id

    def count_limited(self, limit: str) -> float:
        found = self.server.metrics.registry.get_sample_value(
            "scs_limited_total", {"limit": limit}
        )
        return found or 0.0


def _read(text: bytes) -> dict[str, Any]:
    from json import loads

    found: dict[str, Any] = loads(text)
    return found


@pytest.fixture
async def open_hub(tmp_path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Hub:
            made = make_settings(tmp_path / "data", search_index=False, **settings)
            return Hub(await stack.enter_async_context(open_server(made)))

        yield start
