"""Ordinary tools/call over stdio and in process, answered without FastMCP's chain.

Over HTTP `transport.lane` answers them before the SDK has read anything. Here the SDK has read the
message and keeps the session; a middleware of its server gives the answer.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from fastmcp import FastMCP
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from opentelemetry import trace
from pydantic_core import from_json

from shared_context_server.tools.dispatch import Dispatcher
from shared_context_server.tools.mcp import low_level_connection
from shared_context_server.transport.tool_calls import (
    CallResults,
    KnownEnvelopes,
    OrdinaryCall,
    find_ordinary_call,
    is_valid_call,
    run_call,
    select_envelope,
)


def answer_calls_directly(mcp: FastMCP[Any], dispatcher: Dispatcher) -> None:
    """Answer ordinary calls of tools on this server without FastMCP, but where sessions are bound to
    tokens: FastMCP knows the bindings."""
    if dispatcher.services.settings.mcp_session_identity:
        return
    low_level = mcp._mcp_server
    low_level.middleware.insert(
        0, DirectCalls(dispatcher, CallResults(low_level.server_info_stamp))
    )


class DirectCalls:
    """Middleware of the SDK's server. Nothing behind it looks at what it answers: what the SDK would
    refuse, and what is not known for certain to be ordinary, it hands on; all calls where the process
    records traces, since it is FastMCP that makes their spans."""

    def __init__(self, dispatcher: Dispatcher, results: CallResults) -> None:
        self._dispatcher = dispatcher
        self._results = results
        self._envelopes = KnownEnvelopes()

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        call = self._find_call(ctx)
        if call is None:
            return await call_next(ctx)
        connection = await low_level_connection(ctx, None)
        outcome = await run_call(self._dispatcher, call, connection, is_strict=False)
        is_handshake_era = ctx.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS
        result = self._results.write(outcome, is_handshake_era=is_handshake_era)
        return cast("dict[str, Any]", from_json(result))

    def _find_call(self, ctx: ServerRequestContext[Any, Any]) -> OrdinaryCall | None:
        """The call, if the SDK would take it as it is."""
        if ctx.method != "tools/call" or ctx.request_id is None or _has_tracing():
            return None
        if not ctx.session._connection.initialize_accepted or not _has_text_keys(ctx.params):
            return None
        call = find_ordinary_call(self._dispatcher, ctx.params)
        if call is None:
            return None
        version, envelope = ctx.protocol_version, select_envelope(call.meta)
        ask = partial(is_valid_call, version, call.tool, envelope)
        return call if self._envelopes.is_taken((call.tool, version), envelope, ask) else None


def _has_tracing() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _has_text_keys(params: Any) -> bool:
    """Whether the members of the params' objects are named by text, as in JSON. A host in this process
    may send any dict."""
    parts = (params, *params.values()) if isinstance(params, dict) else ()
    return all(isinstance(key, str) for part in parts if isinstance(part, dict) for key in part)
