"""The direct lane answers as the SDK does: the same requests are sent through both and compared."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from hypothesis import HealthCheck, given, settings

from tests.transport.generated import (
    ARGUMENTS,
    BOTH,
    CREDENTIALS,
    ENVELOPE,
    MODERN,
    OLD_VERSIONS,
    requests,
)
from tests.transport.pairs import KEY, URL, Request, open_pair
from tests.transport.recording.recorder import serve


@pytest.mark.timeout(3600)
def test_generated_requests_are_answered_alike() -> None:
    """Each is sent twice: what the lane has remembered of the first answer is the second.

    LANE_EXAMPLES=5000 makes the long run.
    """
    taken: Counter[str] = Counter()
    with (
        TemporaryDirectory() as directory,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_pair(Path(directory))) as pair,
    ):

        @settings(
            max_examples=int(os.environ.get("LANE_EXAMPLES", "300")),
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(requests())
        def compare(request: Request) -> None:
            pair.differences.clear()  # of the example before, which has failed
            for turn in ("first", "again"):
                taken[turn] += portal.call(pair.compare, request)
            taken["requests"] += 1
            assert not pair.differences, pair.differences[0]

        compare()
    print(f"\n{taken['requests']} generated, each sent twice; by the lane {dict(taken)}")
    assert taken["again"] > taken["requests"] / 8


def usual(method: str, params: dict[str, Any], version: str | None, **more: str) -> Request:
    headers = [("accept", more.pop("accept", BOTH)), ("content-type", "application/json")]
    if version == MODERN:
        params = {**params, "_meta": {**ENVELOPE, **more}}
        headers += [("mcp-method", method)]
        headers += [("mcp-name", params["name"])] if "name" in params else []
    if version is not None:
        headers.append(("mcp-protocol-version", version))
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    return Request(json.dumps(body).encode(), [*headers, *CREDENTIALS[0]])


async def test_usual_requests_take_the_lane_and_are_answered_alike(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair:
        count = 0
        for version in (MODERN, *OLD_VERSIONS, None):
            for name, choices in ARGUMENTS.items():
                for arguments in choices:
                    for accept in (BOTH, "application/json", "text/event-stream"):
                        call = {"name": name, "arguments": arguments}
                        await pair.compare(usual("tools/call", call, version, accept=accept))
                        count += name not in ("nope", "wait_for_messages")
        assert pair.lane.answered == count
        for version in (MODERN, "2025-06-18"):
            listing = usual("tools/list", {}, version)
            before = pair.lane.answered
            for _ in range(3):
                await pair.compare(listing)
            assert pair.lane.answered == before + 2  # the first time the SDK was asked


async def test_the_case_of_header_names_changes_nothing(tmp_path: Path) -> None:
    """Over a socket, since it is the server under the application that reads them in any case."""

    def post(url: str, request: Request, change: Callable[[str], str]) -> tuple[int, bytes]:
        with closing(HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
            headers = {change(name): value for name, value in request.headers}
            connection.request("POST", "/mcp", request.body, headers)
            response = connection.getresponse()
            return response.status, response.read()

    async with (
        open_pair(tmp_path) as pair,
        serve(pair.direct) as direct_url,
        serve(pair.through_sdk) as sdk_url,
    ):
        call = {"name": "list_sessions", "arguments": {}}
        for version in (MODERN, "2025-06-18"):
            request = usual("tools/call", call, version)
            direct = {
                await asyncio.to_thread(post, direct_url, request, change)
                for change in (str.lower, str.upper, str.title)
            }
            through_sdk = await asyncio.to_thread(post, sdk_url, request, str.upper)
            assert [status for status, _ in direct] == [through_sdk[0]] == [200]
        assert pair.lane.answered == 6


async def test_what_names_a_thread_or_a_tool_use_takes_the_lane(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair:
        call = {"name": "list_sessions", "arguments": {}}
        for name in ("claudecode/toolUseId", "threadId"):
            await pair.compare(usual("tools/call", call, MODERN, **{name: "some text"}))
        assert pair.lane.answered == 2


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_what_the_python_sdk_sends_takes_the_lane(tmp_path: Path, mode: str) -> None:
    """Its own requests, recorded on their way and sent once more to both."""
    recorded: list[Request] = []
    async with open_pair(tmp_path) as pair:

        def make_client(**options: Any) -> httpx.AsyncClient:
            async def record(request: httpx.Request) -> None:
                if request.method == "POST":
                    raw = [(k.decode(), v.decode()) for k, v in request.headers.raw]
                    recorded.append(Request(request.content, raw))

            options["transport"] = httpx.ASGITransport(pair.direct)
            return httpx.AsyncClient(**options | {"event_hooks": {"request": [record]}})

        transport = StreamableHttpTransport(
            f"{URL}/mcp",
            headers={"X-API-Key": KEY, "X-Agent-ID": "bob"},
            httpx_client_factory=make_client,
        )
        async with Client(transport, mode=mode) as client:
            await client.list_tools()
            await client.call_tool("list_sessions", {})
            await client.call_tool("nope", {}, raise_on_error=False)
        before = pair.lane.answered
        assert before >= 1
        for request in recorded:
            await pair.compare(request)
        assert pair.lane.answered > before
