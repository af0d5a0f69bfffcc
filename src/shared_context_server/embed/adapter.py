"""Connects a host to an MCP server object in the same process, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self, runtime_checkable

import anyio
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, jsonrpc_message_adapter
from pydantic import ValidationError

from shared_context_server import __version__
from shared_context_server.background_tasks import BackgroundTasks
from shared_context_server.jsonrpc import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    OVERLOADED,
    REQUEST_CANCELLED,
    JsonObject,
    Message,
    Refused,
    RequestId,
    error_answer,
    read_message,
)
from shared_context_server.observability.logs import get_logger

MAX_IN_FLIGHT = 256
MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # the default of MCP over HTTP
CLOSE_GRACE_S = 5.0  # for tools that do not react to their cancellation
LEGACY_VERSION = "2025-06-18"  # for hosts that send requests without a handshake
MODERN_MARK = "io.modelcontextprotocol/protocolVersion"

_log = get_logger("embed")


@runtime_checkable
class RunsOnStreams(Protocol):
    """What the adapter needs of a low-level MCP server."""

    def create_initialization_options(self) -> Any: ...

    async def run(
        self, read_stream: Any, write_stream: Any, initialization_options: Any, /
    ) -> None: ...


def find_low_level_server(server: object) -> RunsOnStreams:
    """The low-level server of a FastMCP or MCPServer object or an `mcp_servers` entry, or the object
    itself if it is one.

    Raises TypeError for anything else.
    """
    if isinstance(server, Mapping):
        server = server.get("instance")
    for name in ("_mcp_server", "_lowlevel_server"):  # FastMCP's, the MCP SDK's own MCPServer's
        server = getattr(server, name, server)
    if not isinstance(server, RunsOnStreams):
        raise TypeError(f"{type(server).__name__} is not an MCP server object")
    return server


@dataclass(slots=True, eq=False)
class _Call:
    """A request to the server. It keeps its slot until the server has finished it, even if its caller
    no longer waits. The request of the handshake has no `request_id`."""

    request_id: RequestId | None
    answer: asyncio.Future[JsonObject]
    is_sent: bool = False


class McpServerAdapter:
    """One MCP session with a server object in this process.

    `handle_message` takes requests, notifications and responses in any order, and many at once.
    Requests of the server to its client are refused, except pings, and its notifications are dropped.
    If a host sends requests without a handshake, the adapter makes it. For the tasks of one loop.
    """

    def __init__(
        self,
        server: object,
        *,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """Raises TypeError if `server` is not an MCP server object. Does not start it."""
        self._server = find_low_level_server(server)
        self._max_in_flight = max_in_flight
        self._max_message_bytes = max_message_bytes
        self._session: _Session | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        """Also false after the server has ended by itself. `connect` starts it again."""
        return self._session is not None and not self._session.is_over

    async def connect(self) -> None:
        """Start a session if there is none. If the server cannot start, its answers say so."""
        async with self._connecting:
            if not self.is_connected:
                if self._session is not None:
                    await self._session.close()
                self._session = _Session(self._server, self._max_in_flight)
            session = self._session
        if session is not None:
            await session.ready.wait()

    async def close(self) -> None:
        """End the session. Running calls get an error. The server object and this adapter can be used
        again after another `connect`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def handle_message(self, raw: bytes | str | JsonObject) -> JsonObject | None:
        """Return the response to a request; None for other messages.

        Errors do not raise: invalid input, an unknown method, a failing server and a closed session
        are JSON-RPC errors, a failing tool is a result with isError. Cancelling the caller's task
        cancels the call in the server.
        """
        try:
            message = read_message(raw, self._max_message_bytes)
            session = self._session
            if session is None:
                raise Refused(CONNECTION_CLOSED, "The adapter is not connected", message.id)
            return await session.handle(message)
        except Refused as refused:
            return refused.answer


class _Session:
    """One `run` of the server over a pair of memory streams, in its own task."""

    def __init__(self, server: RunsOnStreams, max_in_flight: int) -> None:
        self._server = server
        self._max_in_flight = max_in_flight
        self._calls: dict[int, _Call] = {}
        self._last_id = 0
        self._to_server: Any = None
        self._end = "The session has ended"
        self._has_opened = False
        self._handshake: asyncio.Task[JsonObject] | None = None
        self._tasks = BackgroundTasks("mcp-adapter-message")
        self.is_over = False
        self.ready = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="mcp-adapter")
        self._task.add_done_callback(lambda _task: self._finish())

    # The server's side

    async def _run(self) -> None:
        try:
            if self.is_over:  # closed before this task began
                return
            async with create_client_server_memory_streams() as (client, server):
                from_server, self._to_server = client
                self.ready.set()
                serving = asyncio.create_task(self._serve(*server), name="mcp-server")
                try:
                    async for item in from_server:
                        self._receive(item)
                    self._finish()  # no more answers will come; the server may still clean up
                    await serving
                finally:
                    serving.cancel()
                    with suppress(asyncio.CancelledError):
                        await serving
        except Exception as exc:  # noqa: BLE001 - a server can raise anything; the callers get the error
            self._end = f"The server has failed: {_describe(exc)}"
            _log.warning("an embedded server failed", error=self._end)

    async def _serve(self, read_stream: Any, write_stream: Any) -> None:
        try:
            options = self._server.create_initialization_options()
            await self._server.run(read_stream, write_stream, options)
        except Exception as exc:
            self._end = f"The server has failed: {_describe(exc)}"
            raise
        finally:
            await write_stream.aclose()
            await read_stream.aclose()

    def _receive(self, item: SessionMessage | Exception) -> None:
        if isinstance(item, Exception):
            return
        body: JsonObject = item.message.model_dump(by_alias=True, mode="json", exclude_none=True)
        if "method" not in body:
            self._settle(body.get("id"), body)
        elif "id" in body:
            self._tasks.start(self._answer_server(body))

    async def _answer_server(self, request: JsonObject) -> None:
        """Refuse a request of the server, so that it does not wait forever."""
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": {}}
        if request["method"] != "ping":
            text = f"{request['method']} is not supported by this client"
            answer = error_answer(request["id"], METHOD_NOT_FOUND, text)
        with suppress(Refused):
            await self._send(SessionMessage(jsonrpc_message_adapter.validate_python(answer)))

    def _settle(self, internal_id: Any, answer: JsonObject) -> None:
        """Set the answer of a request that the server has finished."""
        call = self._calls.pop(internal_id, None)
        if call is not None and not call.answer.done():
            call.answer.set_result(answer | {"id": call.request_id})

    def _finish(self) -> None:
        self.is_over = True
        self.ready.set()
        for internal_id, call in list(self._calls.items()):
            self._settle(internal_id, error_answer(call.request_id, CONNECTION_CLOSED, self._end))

    # The host's side

    async def handle(self, message: Message) -> JsonObject | None:
        await self.ready.wait()
        if message.kind == "response":
            return None  # the session itself answers requests of the server
        if self.is_over:
            raise Refused(CONNECTION_CLOSED, self._end, message.id)
        if message.kind == "notification":
            await self._notify(message.body)
            return None
        assert message.id is not None
        internal_id, call = self._take_slot(message.id)
        try:
            await self._ensure_handshake(message, call)
            return await self._request(internal_id, call, message.body)
        finally:
            if not call.is_sent:
                self._calls.pop(internal_id, None)

    async def _ensure_handshake(self, message: Message, call: _Call) -> None:
        """Make the handshake if the host does not. The control protocol allows that.

        A session normally begins with `initialize`, or with a request of a version without handshake.
        There is one handshake for all waiting requests, and it goes on if some are cancelled.
        """
        if self._has_opened:
            return
        if self._handshake is None:
            if message.method == "initialize" or _is_modern(message):
                self._has_opened = True
                return
            self._handshake = asyncio.create_task(self._initialize(), name="mcp-handshake")
        handshake = self._handshake
        await asyncio.wait({handshake, call.answer}, return_when=asyncio.FIRST_COMPLETED)
        if not call.answer.done() and (error := handshake.result().get("error")) is not None:
            raise Refused(error["code"], error["message"], message.id)

    async def _initialize(self) -> JsonObject:
        """Send `initialize` and return its answer. After an error the next request tries again."""
        params = {
            "protocolVersion": LEGACY_VERSION,
            "capabilities": {},
            "clientInfo": {"name": "embedding-host", "version": __version__},
        }
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        try:
            answer = await self._request(*self._add_call(None), body)
            if "error" not in answer:
                await self._notify({"jsonrpc": "2.0", "method": "notifications/initialized"})
                self._has_opened = True
        except Refused as refused:
            answer = refused.answer
        self._handshake = None
        return answer

    async def _request(self, internal_id: int, call: _Call, body: JsonObject) -> JsonObject:
        """Send the call and return its answer. If it already has an answer, it is not sent."""
        if not call.answer.done():
            await self._send_request(internal_id, call, body)
        try:
            return await call.answer
        except asyncio.CancelledError:
            if not self.is_over:
                self._tasks.start(self._cancel(internal_id, "The caller has gone"))
            raise

    async def _send_request(self, internal_id: int, call: _Call, body: JsonObject) -> None:
        metadata = ServerMessageMetadata(
            on_request_unanswered=partial(self._settle_unanswered, internal_id)
        )
        try:
            request = JSONRPCRequest.model_validate(body | {"id": internal_id}, by_name=False)
        except ValidationError as exc:
            raise Refused(INVALID_REQUEST, "Not a valid request", call.request_id) from exc
        await self._send(SessionMessage(request, metadata), call.request_id)
        call.is_sent = True
        if call.answer.done() and internal_id in self._calls:  # cancelled while it was being sent
            await self._cancel(internal_id, "")

    def _take_slot(self, request_id: RequestId) -> tuple[int, _Call]:
        for call in self._calls.values():
            if call.request_id == request_id:
                raise Refused(
                    INVALID_REQUEST, "A request with this id is still running", request_id
                )
        if len(self._calls) >= self._max_in_flight:
            text = f"{self._max_in_flight} requests are running; try again later"
            raise Refused(OVERLOADED, text, request_id)
        return self._add_call(request_id)

    def _add_call(self, request_id: RequestId | None) -> tuple[int, _Call]:
        self._last_id += 1
        call = _Call(request_id, asyncio.get_running_loop().create_future())
        self._calls[self._last_id] = call
        return self._last_id, call

    async def _settle_unanswered(self, internal_id: int) -> None:
        call = self._calls.get(internal_id)
        if call is not None:
            text = "The request was cancelled"
            self._settle(internal_id, error_answer(call.request_id, REQUEST_CANCELLED, text))

    async def _notify(self, body: JsonObject) -> None:
        if body["method"] == "notifications/cancelled":
            await self._cancel_for_host(body.get("params", {}))
            return
        try:
            notification = JSONRPCNotification.model_validate(body, by_name=False)
        except ValidationError as exc:
            raise Refused(INVALID_REQUEST, "Not a valid notification") from exc
        await self._send(SessionMessage(notification))

    async def _cancel_for_host(self, params: JsonObject) -> None:
        """Answer a cancelled request at once, and tell the server, which may take longer."""
        wanted = params.get("requestId")
        for internal_id, call in self._calls.items():
            if wanted is not None and call.request_id == wanted:
                if not call.answer.done():
                    text = "The request was cancelled"
                    call.answer.set_result(error_answer(call.request_id, REQUEST_CANCELLED, text))
                if call.is_sent:
                    await self._cancel(internal_id, str(params.get("reason", "")))
                return

    async def _cancel(self, internal_id: int, reason: str) -> None:
        params = {"requestId": internal_id, "reason": reason}
        cancelled = JSONRPCNotification(
            jsonrpc="2.0", method="notifications/cancelled", params=params
        )
        with suppress(Refused):
            await self._send(SessionMessage(cancelled))

    async def _send(self, message: SessionMessage, request_id: RequestId | None = None) -> None:
        """Raises Refused when the session has ended."""
        try:
            await self._to_server.send(message)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as exc:
            raise Refused(CONNECTION_CLOSED, self._end, request_id) from exc

    async def close(self) -> None:
        """Answer all running calls with an error, end the server's input, and wait for the server."""
        self._finish()
        if self._to_server is not None:
            await self._to_server.aclose()
        done, _ = await asyncio.wait({self._task}, timeout=CLOSE_GRACE_S)
        if not done:
            _log.warning("an embedded server did not end in time and was cancelled")
            self._task.cancel()


def _is_modern(message: Message) -> bool:
    meta = message.body.get("params", {}).get("_meta")
    return isinstance(meta, dict) and MODERN_MARK in meta


def _describe(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return str(error) or type(error).__name__
