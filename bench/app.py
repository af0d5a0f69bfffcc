"""The server under test with two baselines beside it: a bare JSON route and a tool that does nothing.

Run as a process of its own: `python -m bench.app DATA_DIR` prints its port on standard output.
"""

from __future__ import annotations

import gc
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from shared_context_server.server import open_server
from shared_context_server.settings import Settings

API_KEY = "bench-api-key-0123456789abcdef"


def bench_settings(data_dir: Path) -> Settings:
    """Defaults, but for fixed keys and no rate limit: twenty connections of one agent would meet it."""
    return Settings(
        data_dir=data_dir,
        api_key=API_KEY,
        admin_api_key="bench-admin-key-0123456789abcdef",
        jwt_secret_key="bench-jwt-secret-0123456789abcdef0123456789",
        rate_limit="off",
        failed_auth_limit="off",
    )


async def bare(request: Request) -> JSONResponse:
    """What any Starlette JSON route does: parse, answer."""
    body: dict[str, Any] = await request.json()
    return JSONResponse({"success": True, "seq": len(body)})


class WithBareRoute:
    """`/bare` is answered without any part of the server; everything else by the server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bare = Starlette(routes=[Route("/bare", bare, methods=["POST"])])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/bare":
            await self._bare(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def main(data_dir: Path) -> None:
    async with open_server(bench_settings(data_dir)) as server:

        @server.mcp.tool
        def noop(session_id: str, content: str) -> dict[str, bool]:
            return {"success": bool(session_id and content)}

        config = uvicorn.Config(
            WithBareRoute(server.app), log_config=None, lifespan="off", ws="none"
        )
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            print(listener.getsockname()[1], flush=True)
            gc.collect()
            gc.freeze()
            await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
