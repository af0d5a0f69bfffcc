"""Bare Starlette routes under uvicorn: what any JSON route costs, and what sending some bytes costs.

Run as a process of its own, `python -m bench.bare`, which says its port as the server does.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.app import bench_settings
from shared_context_server.cli.http import make_options

_kept: dict[str, bytes] = {}


async def answer_json(request: Request) -> JSONResponse:
    """What any Starlette JSON route does: parse, answer."""
    body: dict[str, Any] = await request.json()
    return JSONResponse({"success": True, "seq": len(body)})


async def keep(request: Request) -> Response:
    """Take the bytes that answer_kept sends under this name."""
    _kept[request.path_params["name"]] = await request.body()
    return Response()


async def answer_kept(request: Request) -> Response:
    """Parse a JSON body, and answer with the bytes that were kept under this name."""
    await request.json()
    return Response(_kept[request.path_params["name"]], media_type="application/json")


async def main() -> None:
    app = Starlette(
        routes=[
            Route("/bare", answer_json, methods=["POST"]),
            Route("/kept/{name}", keep, methods=["PUT"]),
            Route("/kept/{name}", answer_kept, methods=["POST"]),
        ]
    )
    # As the server itself is served, so that the two differ in the app only.
    options = make_options(bench_settings(Path())) | {"lifespan": "off"}
    config = uvicorn.Config(app, **options)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        print(json.dumps({"health": f"{url}/health"}), file=sys.stderr, flush=True)
        gc.collect()
        gc.freeze()
        await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(main())
