"""Connections at the end of a server: who has asked is answered, who has not is let go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shared_context_server.cli.connections import Connection
from tests.until import PATIENCE_S, until

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("served")


@asynccontextmanager
async def ending_server(
    begun: bytes, shutdown_delay_s: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that has sent `begun` to a server that ends."""

    class DelayedShutdown(Connection):
        pass

    DelayedShutdown.shutdown_delay_s = shutdown_delay_s
    app = Starlette(routes=[Route("/", answer)])
    config = uvicorn.Config(app, http=DelayedShutdown, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(begun)
        async with asyncio.timeout(PATIENCE_S):
            if begun == REQUEST:
                assert (await reader.readuntil(b"served")).startswith(b"HTTP/1.1 200")
            await until(lambda: bool(server.server_state.connections))
            server.should_exit = True
            await until(lambda: listener.fileno() == -1)
            try:
                yield reader, writer
            finally:
                writer.close()
                await serving


async def test_a_request_that_meets_the_end_is_answered_and_told_so() -> None:
    for begun in (b"", REQUEST[:20], REQUEST):
        async with ending_server(begun, shutdown_delay_s=PATIENCE_S) as (reader, writer):
            writer.write(REQUEST if begun == REQUEST else REQUEST[len(begun) :])
            answered = await reader.read()
            assert answered.startswith(b"HTTP/1.1 200 OK")
            assert b"connection: close" in answered
            assert answered.endswith(b"served")


async def test_a_connection_without_a_request_does_not_hold_up_the_end() -> None:
    async with ending_server(b"", shutdown_delay_s=0.05) as (reader, _):
        assert await reader.read() == b""
