"""OpenTelemetry traces: one span for each call of a tool.

The API of OpenTelemetry is always installed. Spans are made only in a process that has set a tracer
provider: `open_traces` sets one in a process of the server's own, and a program that embeds the server
may have its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared_context_server import __version__
from shared_context_server.environment import choose_trace_exporters
from shared_context_server.observability.logs import ROOT, get_logger
from shared_context_server.observability.request_ids import current_request_id

EXTRA: Final = "otel"
METHOD: Final = "tools/call"
REQUEST_ID: Final = "scs.request_id"
MAX_PARENT_CHARS: Final = 128  # of a traceparent; version 00 has 55
MAX_STATE_CHARS: Final = 512  # of a tracestate; W3C Trace Context asks for no more
FLUSH_S: Final = 3.0  # at the end, for spans that were not sent yet

_W3C = TraceContextTextMapPropagator()
_log = get_logger("traces")


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The caller's span, as W3C Trace Context writes it. `is_of_message`: it was in the MCP message
    itself; otherwise in a header of the HTTP request."""

    parent: str
    state: str
    is_of_message: bool


def read_trace_parent(parent: Any, state: Any, *, is_of_message: bool) -> TraceParent | None:
    """Return what a caller has sent as traceparent and tracestate; None without a usable length. Its
    form is checked when a span is made."""
    if not isinstance(parent, str) or not 0 < len(parent) <= MAX_PARENT_CHARS:
        return None
    if not isinstance(state, str) or len(state) > MAX_STATE_CHARS:
        state = ""
    return TraceParent(parent, state, is_of_message)


class Traces:
    """Makes the spans of tool calls, if the process has a tracer provider.

    `tracer`: by default that of the process. `is_settled`: no provider will be set later, so that calls
    without traces cost nothing.
    """

    def __init__(self, tracer: Tracer | None = None, *, is_settled: bool = False) -> None:
        self._is_settled = is_settled
        self._tracer = tracer or _find_tracer()

    def find_tracer(self) -> Tracer | None:
        """Return the tracer; None if this process records no traces."""
        if self._tracer is None and not self._is_settled:
            self._tracer = _find_tracer()
        return self._tracer


def _find_tracer() -> Tracer | None:
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return None
    return provider.get_tracer(ROOT, __version__)


@contextmanager
def trace_call(tracer: Tracer, tool: str, parent: TraceParent | None) -> Iterator[Span]:
    """Make the block one span, after OpenTelemetry's conventions for servers of MCP. They are used on
    all surfaces, so that a call has one name. Exceptions are not recorded: their texts are the
    caller's or the store's."""
    context, links = _find_parent(parent)
    attributes = {
        "mcp.method.name": METHOD,
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
    }
    if request_id := current_request_id.get():
        attributes[REQUEST_ID] = request_id
    with tracer.start_as_current_span(
        f"{METHOD} {tool}",
        context,
        SpanKind.SERVER,
        attributes,
        links,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def _find_parent(parent: TraceParent | None) -> tuple[Context | None, list[Link]]:
    """Return the context of the caller's span, None for the current one, and links to other spans.

    A span in the message is the parent, and the current one is linked: the transport may carry several
    messages. A span in a header is the parent only if no instrumentation has read the header already.
    """
    current = trace.get_current_span().get_span_context()
    if parent is None or (current.is_valid and not parent.is_of_message):
        return None, []
    carrier = {"traceparent": parent.parent, "tracestate": parent.state}
    context = _W3C.extract(carrier)
    sent = trace.get_current_span(context).get_span_context()
    if not sent.is_valid:
        return None, []
    is_other = current.is_valid and current.span_id != sent.span_id
    return context, [Link(current)] if is_other else []


def record_caller(span: Span, agent_id: str) -> None:
    """Add the agent that calls."""
    span.set_attribute("gen_ai.agent.id", agent_id)


def record_session(span: Span, session_id: str) -> None:
    """Add the session that the call is about."""
    span.set_attribute("gen_ai.conversation.id", session_id)


def record_failure(span: Span, code: str, request_id: str | None) -> None:
    """Mark the call as failed with this code of ours. `request_id`: that of the error, which calls
    outside of HTTP have only then."""
    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR, code)
    if request_id is not None:
        span.set_attribute(REQUEST_ID, request_id)


@asynccontextmanager
async def open_traces() -> AsyncIterator[Traces]:
    """Record traces in this process, which is the server's own, if the environment asks for it. What
    keeps the traces from being sent is logged and does not keep the server from starting.

    A provider that is there already, as under `opentelemetry-instrument`, is left as it is.
    """
    if _find_tracer() is not None:
        yield Traces(is_settled=True)
        return
    provider = _start_provider(choose_trace_exporters())
    try:
        yield Traces(is_settled=True)
    finally:
        if provider is not None:
            # It may have to wait for a collector that does not answer.
            ending = threading.Thread(target=provider.shutdown, name="traces-end", daemon=True)
            ending.start()
            await asyncio.to_thread(ending.join, FLUSH_S)


def _start_provider(exporters: list[str]) -> Any:
    """Set a provider that sends spans by these exporters; None if there are none, or it failed."""
    if not exporters:
        return None
    if find_spec("opentelemetry.sdk") is None:
        _log.warning(
            "no traces are sent: OTEL_ variables ask for them, but the extra is not installed",
            hint=f"pip install 'CHECKOUT[{EXTRA}]', or 'WHEEL[{EXTRA}]', with the path of either",
        )
        return None
    from shared_context_server.observability.span_export import (  # noqa: PLC0415 - an extra
        make_provider,
    )

    try:
        provider = make_provider(exporters)
    except (ImportError, LookupError, OSError, ValueError) as exc:
        _log.warning("no traces are sent: an OTEL_ variable cannot be used", error=str(exc))
        return None
    trace.set_tracer_provider(provider)
    return provider
