"""Fast path for ordinary tools/call requests over stdio and in process, without FastMCP.

Over HTTP `transport.lane` answers these requests before the SDK reads them. Here the SDK reads the
message and keeps the session, and a middleware of its server answers.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from fastmcp import FastMCP
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
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
    """Answer ordinary tool calls on this server without FastMCP. Not used if sessions are bound to
    tokens, because FastMCP has the bindings."""
    if dispatcher.services.settings.mcp_session_identity:
        return
    low_level = mcp._mcp_server
    low_level.middleware.insert(
        0, DirectCalls(dispatcher, CallResults(low_level.server_info_stamp))
    )


class DirectCalls:
    """Middleware of the SDK's server. Nothing checks its answers, so it passes on all calls that the SDK
    could refuse, and all that are not certainly ordinary."""

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
        """The call, if it is ordinary and the SDK would accept it."""
        if ctx.method != "tools/call" or ctx.request_id is None:
            return None
        if not ctx.session._connection.initialize_accepted or not _has_text_keys(ctx.params):
            return None
        call = find_ordinary_call(self._dispatcher, ctx.params)
        if call is None:
            return None
        version, envelope = ctx.protocol_version, select_envelope(call.meta)
        ask = partial(is_valid_call, version, call.tool, envelope)
        return call if self._envelopes.is_taken((call.tool, version), envelope, ask) else None


def _has_text_keys(params: Any) -> bool:
    """Whether all keys of the params are strings, as in JSON. A host in this process may send any
    dict."""
    parts = (params, *params.values()) if isinstance(params, dict) else ()
    return all(isinstance(key, str) for part in parts if isinstance(part, dict) for key in part)
