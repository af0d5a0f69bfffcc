"""A limit that is reached has one code, one Retry-After and one count, on whichever surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared_context_server.errors import ConfigurationError
from shared_context_server.server import Server, open_server
from tests.settings import make_settings
from tests.storage.builders import make_caller
from tests.surfaces.conftest import SURFACES, Surface, headers_of, open_surface, serve

LIMITED: dict[str, Any] = {
    "rate_limit_tools": ("get_time=2/hour",),
    "max_messages_per_session": 1,
    "max_streams_per_agent": 1,
}


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[tuple[Server, str]]:
    async with serve(make_settings(tmp_path / "data", **LIMITED)) as started:
        yield started


def count_limited(server: Server, limit: str) -> float:
    found = server.metrics.registry.get_sample_value("scs_limited_total", {"limit": limit})
    return found or 0.0


async def test_every_surface_refuses_a_full_session_and_a_tool_that_is_called_too_often(
    limited: tuple[Server, str],
) -> None:
    server, url = limited
    async with AsyncExitStack() as stack:
        surfaces: list[Surface] = [
            await stack.enter_async_context(open_surface(kind, url, headers_of("alice")))
            for kind in SURFACES
        ]
        rest = surfaces[0]
        session_id = (await rest.call("create_session", purpose="p"))["session_id"]
        add = {"session_id": session_id, "content": "x"}
        assert not (await rest.call("add_message", **add)).is_error
        for _ in range(2):
            assert not (await rest.call("get_time")).is_error
        for surface in surfaces:
            full = await surface.call("add_message", **add)
            assert full["code"] == "QUOTA_EXCEEDED"
            assert full["details"] == {"limit": "max_messages_per_session", "maximum": 1}
            often = await surface.call("get_time")
            assert (often["code"], often["retryable"]) == ("RATE_LIMITED", True)
            assert 3000 < often["details"]["retry_after_s"] <= 3600
    async with httpx.AsyncClient(base_url=url, headers=headers_of("alice")) as client:
        calls = [{"tool": "get_time"}, {"tool": "add_message", "arguments": add}]
        results = (await client.post("/mcp/batch", json={"calls": calls})).json()["results"]
        assert [result["status"] for result in results] == [429, 409]
        answer = await client.post("/mcp/tool/get_time", json={})
        assert 3000 < int(answer.headers["Retry-After"]) <= 3600
    assert count_limited(server, "max_messages_per_session") == len(SURFACES) + 1
    assert count_limited(server, "rate_limit_tools") == len(SURFACES) + 2


async def test_refused_sizes_depths_and_streams_are_counted(limited: tuple[Server, str]) -> None:
    server, url = limited
    async with httpx.AsyncClient(base_url=url, headers=headers_of("alice")) as client:
        path = "/mcp/tool/set_memory"
        deep: Any = "x"
        for _ in range(150):
            deep = [deep]
        assert (await client.post(path, json={"key": "k", "value": deep})).status_code == 400
        overlong = '{"key":"k","value":' + "[" * 1000 + "]" * 1000 + "}"
        assert (await client.post(path, content=overlong)).status_code == 400
        assert count_limited(server, "json_depth") == 2
        large = {"key": "k", "value": "x" * 300_000}
        assert (await client.post(path, json=large)).status_code == 413
        assert count_limited(server, "size") == 1
        assert (await client.post(path, content=b"x" * 2_000_000)).status_code == 413
        assert count_limited(server, "max_body_bytes") == 1
        caller = make_caller("alice", key_id="api_key")
        with server.services.slots.take(caller), pytest.raises(Exception, match="too many open"):
            server.services.slots.take(caller).__enter__()
        assert count_limited(server, "max_streams_per_agent") == 1


async def test_a_rate_for_a_tool_that_does_not_exist_stops_the_start(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, rate_limit_tools=("get_tme=2/hour",))
    with pytest.raises(ConfigurationError, match="no tool 'get_tme'"):
        async with open_server(settings):
            pass
