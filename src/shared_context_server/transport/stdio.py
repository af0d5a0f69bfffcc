"""MCP over stdin and stdout, with limits and error answers for invalid lines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, cast

import anyio
from fastmcp import FastMCP
from fastmcp.server.context import reset_transport, set_transport
from mcp.server.stdio import stdio_server
from mcp.shared._stream_protocols import WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from shared_context_server.jsonrpc import INVALID_REQUEST, Refused, read_message
from shared_context_server.observability.logs import get_logger

STDIN = 0
MAX_LOGGED_CHARS = 200

_log = get_logger("stdio")


async def run_stdio(mcp: FastMCP[Any], max_bytes: int) -> None:
    """Serve the client on stdin, which must be a pipe, and stdout, until the input ends.

    A line that is not one JSON-RPC message of at most `max_bytes` gets an error answer and is logged.
    """
    lines = InputLines(max_bytes)
    transport = await lines.open()
    token = set_transport("stdio")
    low = mcp._mcp_server
    try:
        # The SDK expects a text file, but only iterates over its lines.
        stdin = cast("anyio.AsyncFile[str]", lines)
        async with mcp._lifespan_manager(), stdio_server(stdin=stdin) as (read, write):
            lines.answer_through(write)
            await low.run(read, write, low.create_initialization_options())
    finally:
        reset_transport(token)
        transport.close()


class InputLines:
    """Reads lines of limited size from stdin. Yields the valid messages and refuses other lines."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reader = asyncio.StreamReader(limit=max_bytes + 1)  # with the end of the line
        self._write: asyncio.Future[WriteStream[SessionMessage]] = asyncio.Future()

    async def open(self) -> asyncio.BaseTransport:
        """Start reading. The caller closes the returned transport."""
        loop = asyncio.get_running_loop()
        # Handlers and child processes must not read the client's input: their stdin is empty.
        source = os.fdopen(os.dup(STDIN), "rb", buffering=0)
        devnull = os.open(os.devnull, os.O_RDONLY)
        os.dup2(devnull, STDIN)
        os.close(devnull)
        protocol = asyncio.StreamReaderProtocol(self._reader)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, source)
        return transport

    def answer_through(self, write: WriteStream[SessionMessage]) -> None:
        """Send refusals through this stream."""
        self._write.set_result(write)

    async def __aiter__(self) -> AsyncIterator[str]:
        write = await self._write
        while (line := await self._read_line()) != b"":
            if line is None or line.strip():
                try:
                    yield self._check(line)
                except Refused as exc:
                    shown = exc.message[:MAX_LOGGED_CHARS]
                    _log.warning("a line of stdin is no message", code=exc.code, error=shown)
                    answer = jsonrpc_message_adapter.validate_python(exc.answer)
                    await write.send(SessionMessage(answer))

    def _check(self, line: bytes | None) -> str:
        if line is None:
            raise Refused(INVALID_REQUEST, f"The message is longer than {self._max_bytes} bytes")
        message = read_message(line.rstrip(b"\r\n"), self._max_bytes)
        try:
            jsonrpc_message_adapter.validate_python(message.body, by_name=False)
        except ValidationError as exc:
            raise Refused(INVALID_REQUEST, "This is not a JSON-RPC message", message.id) from exc
        return line.decode()

    async def _read_line(self) -> bytes | None:
        """The next line, b"" at the end of the input, None for a line that is too long."""
        is_too_long = False
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as exc:
                line = exc.partial
            except asyncio.LimitOverrunError as exc:
                is_too_long = True
                await self._reader.readexactly(exc.consumed)
                continue
            return None if is_too_long else line
