"""Traces: one span for each call of a tool, on every surface, without what callers have written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from shared_context_server.observability.traces import (
    MAX_PARENT_CHARS,
    MAX_STATE_CHARS,
    Traces,
    read_trace_parent,
)
from tests.settings import make_settings
from tests.surfaces.conftest import headers_of, serve

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OF_MESSAGE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STATE = "vendor=opaque"
SECRET = "what only the participants may read"

Send = Callable[[str, dict[str, Any], str], Awaitable[None]]


@dataclass
class Traced:
    """A server that records spans in memory."""

    url: str
    spans: InMemorySpanExporter
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def take(self) -> tuple[ReadableSpan, ...]:
        """The spans since the last time."""
        finished = self.spans.get_finished_spans()
        self.spans.clear()
        return finished

    async def open_sender(self, surface: str) -> Send:
        """A function that calls a tool with a parent of its span, as this surface names it."""
        if surface in ("rest", "batch"):
            client = httpx.AsyncClient(base_url=self.url, headers=headers_of("alice"))
            http = await self.stack.enter_async_context(client)

            async def post(tool: str, arguments: dict[str, Any], parent: str) -> None:
                call: dict[str, Any] = {"tool": tool, "arguments": arguments}
                path, body = f"/mcp/tool/{tool}", arguments
                if surface == "batch":
                    path, body = "/mcp/batch", {"calls": [call]}
                headers = {"traceparent": parent, "tracestate": STATE, "X-Request-ID": "mine"}
                await http.post(path, json=body, headers=headers)

            return post
        headers = headers_of("alice") | {"traceparent": PARENT, "X-Request-ID": "mine"}
        transport = StreamableHttpTransport(f"{self.url}/mcp", headers=headers)
        mcp = Client(transport, mode=surface)  # type: ignore[arg-type]
        client = await self.stack.enter_async_context(mcp)

        async def call(tool: str, arguments: dict[str, Any], parent: str) -> None:
            meta = {"traceparent": parent, "tracestate": STATE}
            await client.call_tool(tool, arguments, meta=meta, raise_on_error=False)

        return call


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    settings = make_settings(tmp_path / "data")
    async with serve(settings, Traces(provider.get_tracer("test"))) as (_, url):
        made = Traced(url, spans)
        async with made.stack:
            yield made


def describe(span: ReadableSpan) -> tuple[str, dict[str, Any]]:
    return span.name, dict(span.attributes or {})


def expect(tool: str, **more: str) -> tuple[str, dict[str, str]]:
    attributes = {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
        "scs.request_id": "mine",
    }
    return f"tools/call {tool}", attributes | more


@pytest.mark.parametrize("surface", ["rest", "batch", "2026-07-28", "legacy"])
async def test_a_call_is_one_span_below_the_caller_s_without_what_it_says(
    traced: Traced, surface: str
) -> None:
    send = await traced.open_sender(surface)
    await send("create_session", {"purpose": SECRET}, OF_MESSAGE)
    (span,) = traced.take()
    assert describe(span) == expect("create_session", **{"gen_ai.agent.id": "alice"})
    assert span.kind is SpanKind.SERVER
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent is not None
    assert span.parent.is_remote
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" in OF_MESSAGE
    assert span.context is not None
    assert span.context.trace_id == span.parent.trace_id
    assert span.parent.trace_state.to_header() == STATE
    # A tool that waits goes through the SDK, where it is MCP.
    place = {"session_id": "session_0123456789abcdef"}
    await send("wait_for_messages", {**place, "timeout_seconds": 0}, OF_MESSAGE)
    await send("add_message", {**place, "content": SECRET, "surplus": SECRET}, OF_MESSAGE)
    await send("no_such_tool", {"content": SECRET}, OF_MESSAGE)
    spans = traced.take()
    caller = {"gen_ai.agent.id": "alice"}
    assert [describe(span) for span in spans] == [
        expect(
            "wait_for_messages",
            **caller,
            **{"gen_ai.conversation.id": place["session_id"], "error.type": "SESSION_NOT_FOUND"},
        ),
        expect("add_message", **caller, **{"error.type": "INVALID_ARGUMENT"}),
        expect("unknown", **{"error.type": "TOOL_NOT_FOUND"}),
    ]
    for span in spans:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == span.attributes["error.type"]  # type: ignore[index]
        assert not span.events
        assert span.parent is not None
    assert SECRET not in "".join(span.to_json() for span in spans)


@pytest.mark.parametrize(
    "parent",
    ["", "00-0-0-00", PARENT.upper(), f"{PARENT}, {PARENT}", f"01{PARENT[2:]}-" + "x" * 99],
)
async def test_a_call_with_an_unusable_parent_begins_a_trace(traced: Traced, parent: str) -> None:
    send = await traced.open_sender("rest")
    await send("list_sessions", {}, parent)
    (span,) = traced.take()
    assert span.parent is None


async def test_each_call_of_a_batch_is_a_span(traced: Traced) -> None:
    calls = [{"tool": "list_sessions"}, {"tool": "get_time"}]
    async with httpx.AsyncClient(base_url=traced.url, headers=headers_of("alice")) as client:
        await client.post("/mcp/batch", json={"calls": calls}, headers={"traceparent": PARENT})
    spans = traced.take()
    assert [span.name for span in spans] == ["tools/call list_sessions", "tools/call get_time"]
    assert len({span.context.trace_id for span in spans if span.context}) == 1


def test_what_is_read_of_a_parent_is_bounded() -> None:
    assert read_trace_parent("x" * (MAX_PARENT_CHARS + 1), None, is_of_message=True) is None
    assert read_trace_parent({"a": 1}, None, is_of_message=True) is None
    read = read_trace_parent(PARENT, "x" * (MAX_STATE_CHARS + 1), is_of_message=True)
    assert read is not None
    assert read.state == ""
