"""The direct lane: a fast path for ordinary MCP requests over HTTP in stateless mode.

It passes a tools/call directly to the dispatcher and writes the answer. For requests whose answer is
the same for all callers (initialize, server/discover, tools/list, ping, notifications/initialized) it
caches the SDK's answer by the parameters. All requests that are not certainly ordinary go to the SDK. A
test compares the answers of both.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Final

from cachetools import LRUCache
from mcp.shared.inbound import InboundModernRoute, classify_inbound_request
from mcp_types import CLIENT_INFO_META_KEY, DEFAULT_NEGOTIATED_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic_core import from_json, to_json
from starlette.types import Message as AsgiMessage
from starlette.types import Send

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.instances import read_meta
from shared_context_server.auth.middleware.head import RawHeader, RequestHead
from shared_context_server.jsonrpc import JsonObject
from shared_context_server.tools.dispatch import Dispatcher, may_exceed_doubles
from shared_context_server.transport.request import McpRequest
from shared_context_server.transport.tool_calls import (
    MAX_KEY_BYTES,
    MAX_REMEMBERED,
    CallResults,
    KnownEnvelopes,
    OrdinaryCall,
    find_ordinary_call,
    has_only_known_meta,
    is_valid_call,
    run_call,
    select_envelope,
)

CACHEABLE_METHODS: Final = frozenset({"initialize", "ping", "server/discover", "tools/list"})
INITIALIZED: Final = "notifications/initialized"
MAX_ID_CHARS: Final = 256

_MESSAGE_MEMBERS = frozenset({"jsonrpc", "id", "method", "params"})
_NOTIFICATION_MEMBERS = frozenset({"jsonrpc", "method", "params"})
_ROUTING_HEADERS: Final = (b"mcp-protocol-version", b"mcp-method", b"mcp-name")
STREAM_HEADERS: Final[tuple[RawHeader, ...]] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
_SEPARATORS = tuple((char.encode(), b"\\u%04x" % ord(char)) for char in "\u0085\u2028\u2029")
_JSON_HEADERS: Final[tuple[RawHeader, ...]] = ((b"content-type", b"application/json"),)


class DirectLane:
    """Answers ordinary requests. `server_info`: see CallResults."""

    def __init__(self, dispatcher: Dispatcher, server_info: JsonObject) -> None:
        self._dispatcher = dispatcher
        self._call_results = CallResults(server_info)
        self._results: LRUCache[bytes, bytes] = LRUCache(MAX_REMEMBERED)
        # Answers to notifications, which have a status and headers and no body.
        self._receipts: LRUCache[bytes, AsgiMessage] = LRUCache(MAX_REMEMBERED)
        self._envelopes = KnownEnvelopes()

    async def answer(self, request: McpRequest, send: Send) -> bool:
        """Answer the request and return True. Return False, and send nothing, if the SDK must answer."""
        if request.message.kind == "notification":
            return await self._acknowledge(request, send)
        if not _is_ordinary(request):
            return False
        if request.message.method == "tools/call":
            result = await self._call(request)
        else:
            key = _result_key(request)
            result = None if key is None else self._results.get(key)
        if result is None:
            return False
        answer = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (to_json(request.message.id), result)
        await _send(request, answer, send)
        return True

    async def _acknowledge(self, request: McpRequest, send: Send) -> bool:
        key = _receipt_key(request)
        start = None if key is None else self._receipts.get(key)
        if start is None:
            return False
        await send({**start, "headers": [*start["headers"]]})
        await send({"type": "http.response.body", "body": b""})
        return True

    def cache_result(self, request: McpRequest, send: Send) -> Send:
        """Wrap `send` to cache the SDK's answer if it is the same for all callers."""
        if request.message.kind == "notification":
            return self._cache_receipt(request, send)
        key = _result_key(request) if _is_ordinary(request) else None
        if key is None:
            return send
        sent: list[bytes] = []

        async def keep(message: AsgiMessage) -> None:
            await send(message)
            if message["type"] == "http.response.body":
                sent.append(message.get("body", b""))
                if not message.get("more_body", False):
                    result = _read_result(b"".join(sent))
                    if result is not None:
                        self._results[key] = result

        return keep

    def _cache_receipt(self, request: McpRequest, send: Send) -> Send:
        key = _receipt_key(request)
        if key is None:
            return send
        started: AsgiMessage = {}

        async def keep(message: AsgiMessage) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = {**message, "headers": [*message["headers"]]}
            elif started["status"] == HTTPStatus.ACCEPTED and not message.get("body"):
                self._receipts[key] = started
            await send(message)

        return keep

    async def _call(self, request: McpRequest) -> bytes | None:
        call = find_ordinary_call(self._dispatcher, request.message.body.get("params"))
        if call is None or not self._is_taken_by_sdk(request, call):
            return None
        is_strict = not may_exceed_doubles(request.body, call.arguments, request.message.count)
        connection = _name_caller(request, call.meta)
        outcome = await run_call(self._dispatcher, call, connection, is_strict=is_strict)
        return self._call_results.write(outcome, is_handshake_era=request.is_handshake_era)

    def _is_taken_by_sdk(self, request: McpRequest, call: OrdinaryCall) -> bool:
        """Whether the SDK accepts a call of this tool. It checks the headers, the tool's name and the
        protocol's part of _meta."""
        if _is_ambiguous(request.head):
            return False
        envelope = select_envelope(call.meta)
        routing = map(request.head.headers.get, _ROUTING_HEADERS)
        ask = partial(_is_valid_call, request, call.tool, envelope)
        return self._envelopes.is_taken((call.tool, *routing), envelope, ask)


def _is_valid_call(request: McpRequest, tool: str, envelope: JsonObject) -> bool:
    headers = _read_routing(request.head)
    if request.is_handshake_era:
        version = headers.get("mcp-protocol-version", DEFAULT_NEGOTIATED_VERSION)
        if version not in HANDSHAKE_PROTOCOL_VERSIONS:
            return False
    else:
        route = classify_inbound_request(request.message.body, headers=headers)
        if not isinstance(route, InboundModernRoute):
            return False
        version = route.protocol_version
    return is_valid_call(version, tool, envelope)


def _is_ordinary(request: McpRequest) -> bool:
    """Whether this is a request of a method that is answered here, with the usual members and id."""
    message = request.message
    if message.kind != "request" or not request.is_strict:
        return False
    if message.method != "tools/call" and message.method not in CACHEABLE_METHODS:
        return False
    request_id = message.id
    if isinstance(request_id, str):
        is_usual = len(request_id) <= MAX_ID_CHARS
    else:
        is_usual = request_id is not None and -(2**53) < request_id < 2**53
    return is_usual and _MESSAGE_MEMBERS.issuperset(message.body)


def _name_caller(request: McpRequest, meta: JsonObject) -> Connection:
    """The connection, with the client's own name if nothing else names the agent, and the names of the
    thread and the tool use."""
    info = None if request.is_handshake_era else meta.get(CLIENT_INFO_META_KEY)
    connection = request.connection
    if info is not None:
        connection = connection.with_client_name(info["name"])
    return read_meta(connection, meta)


def _is_ambiguous(head: RequestHead) -> bool:
    """Whether one of the routing headers is repeated."""
    return bool(head.repeated) and not head.repeated.isdisjoint(_ROUTING_HEADERS)


def _read_routing(head: RequestHead) -> dict[str, str]:
    """The protocol version, the method and the name from the headers."""
    return {
        name.decode(): head.headers[name].decode("latin-1")
        for name in _ROUTING_HEADERS
        if name in head.headers
    }


def _result_key(request: McpRequest) -> bytes | None:
    """The cache key: all that the result depends on. None if it is not cached."""
    if request.message.method not in CACHEABLE_METHODS:
        return None
    params = request.message.body.get("params", {})
    meta = params.get("_meta", {})
    if _is_ambiguous(request.head) or not isinstance(meta, dict) or not has_only_known_meta(meta):
        return None
    routing = _read_routing(request.head)
    said = {**params, "_meta": select_envelope(meta)} if "_meta" in params else params
    key = to_json([request.message.method, sorted(routing.items()), said])
    return key if len(key) <= MAX_KEY_BYTES else None


def _receipt_key(request: McpRequest) -> bytes | None:
    """All that the answer to a notification depends on; None for those that are left to the SDK."""
    message, accepted = request.message, request.accepted
    is_usual = request.is_strict and _NOTIFICATION_MEMBERS.issuperset(message.body)
    if message.method != INITIALIZED or not is_usual or _is_ambiguous(request.head):
        return None
    routing = sorted(_read_routing(request.head).items())
    key = to_json([routing, accepted.json, accepted.stream, message.body])
    return key if len(key) <= MAX_KEY_BYTES else None


def _read_result(body: bytes) -> bytes | None:
    """The result in an answer of the SDK. The answer is JSON or a stream with one event."""
    for line in body.splitlines():
        data = line.removeprefix(b"data: ")
        if data.startswith(b"{"):
            answer = from_json(data)
            return to_json(answer["result"]) if "result" in answer else None
    return None


async def _send(request: McpRequest, answer: bytes, send: Send) -> None:
    """Send as the SDK does: a stream to handshake clients that accept one, else JSON."""
    prefers_stream = request.is_handshake_era and request.accepted.stream
    if prefers_stream or not request.accepted.json:
        # Some clients treat these characters as line ends. JSON allows to escape them.
        if not answer.isascii():
            for separator, escape in _SEPARATORS:
                answer = answer.replace(separator, escape)
        answer = b"event: message\r\ndata: %b\r\n\r\n" % answer
        kind = STREAM_HEADERS
    else:
        kind = _JSON_HEADERS
    headers = [*kind, (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
