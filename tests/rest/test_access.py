"""The line for each request, at LOG_LEVEL=DEBUG."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from shared_context_server.rest.access import NO_ANSWER, AccessLog
from tests.rest.conftest import OpenClient


@pytest.fixture
def read_lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """The access lines so far."""
    caplog.set_level("DEBUG", logger="shared_context_server.access")
    return lambda: [
        record.msg
        for record in caplog.records
        if record.name == "shared_context_server.access" and isinstance(record.msg, dict)
    ]


async def test_a_request_leaves_one_line_without_its_query(
    open_agent: OpenClient, read_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with open_agent(log_level="DEBUG") as agent:
        await agent.get("/nowhere?api_key=secret")
        await agent.post("/mcp/tool/list_sessions")
    first, second = read_lines()
    assert (first["method"], first["path"], first["status"]) == ("GET", "/nowhere", 404)
    assert (second["path"], second["status"]) == ("/mcp/tool/list_sessions", 200)
    assert second["duration_ms"] > 0
    assert "secret" not in str(first)


async def test_there_is_none_at_the_default_level(
    agent: httpx.AsyncClient, read_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    await agent.get("/health")
    assert read_lines() == []


async def test_a_request_that_was_not_answered_is_told_apart(
    read_lines: Callable[[], list[dict[str, Any]]],
) -> None:
    async def hang_up(scope: Scope, receive: Receive, send: Send) -> None:
        return

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    app = AccessLog(hang_up)
    await app({"type": "lifespan"}, receive, send)
    await app({"type": "http", "method": "GET", "path": "/x"}, receive, send)
    (line,) = read_lines()
    assert line["status"] == NO_ANSWER
