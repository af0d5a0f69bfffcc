"""Errors of the routes themselves."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared_context_server.errors import RateLimited
from shared_context_server.observability.metrics import Metrics
from shared_context_server.rest.errors import exception_handlers
from shared_context_server.rest.routes import make_routes
from shared_context_server.server import Server
from shared_context_server.services.context import Services
from shared_context_server.tools.arguments import Arguments, Result
from shared_context_server.tools.dispatch import Dispatcher
from shared_context_server.tools.registry import READS, Call, Tool
from tests.rest.conftest import BASE_URL, assert_error

SECRET = "what the log may know and the caller may not"


@pytest.mark.parametrize(
    "path", ["/nowhere", "/mcp/tool", "/mcp/tool/a/b", "/%0A%1b[31m", "/" + "x" * 5000]
)
async def test_an_unknown_path_is_answered_in_the_one_shape(
    agent: httpx.AsyncClient, path: str
) -> None:
    response = await agent.get(path)
    assert_error(response, 404, "NOT_FOUND")
    assert len(response.content) < 2000


@pytest.mark.parametrize(
    "method, path, allow",
    [
        ("GET", "/mcp/batch", "POST"),
        ("PUT", "/mcp/tool/add_message", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/openapi.json", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    agent: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    response = await agent.request(method, path)
    body = assert_error(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == allow
    assert body["details"]["allowed"] == allow.split(", ")


async def test_a_defect_in_a_tool_is_a_500_that_tells_nothing(server: Server) -> None:
    async def break_down(services: Services, call: Call, arguments: Arguments) -> Result:
        """Fails."""
        raise RuntimeError(SECRET)

    broken = Tool("break_down", Arguments, Result, break_down, None, READS)
    metrics = Metrics()
    routes = make_routes(Dispatcher(server.services, [broken], metrics), metrics)
    async with client_for(Starlette(routes=routes)) as client:
        response = await client.post("/mcp/tool/break_down")
    assert_error(response, 500, "INTERNAL_ERROR")
    assert SECRET not in response.text


async def fail(request: Request) -> Response:
    match request.query_params["how"]:
        case "defect":
            raise RuntimeError(SECRET)
        case "limit":
            raise RateLimited(7)
        case _:
            raise HTTPException(418, "short and stout")


def client_for(app: Starlette) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=BASE_URL)


async def test_whatever_a_route_raises_has_the_one_shape() -> None:
    app = Starlette(routes=[Route("/fail", fail)], exception_handlers=exception_handlers())
    async with client_for(app) as client:
        defect = await client.get("/fail?how=defect")
        limited = await client.get("/fail?how=limit")
        other = await client.get("/fail?how=teapot")
    assert_error(defect, 500, "INTERNAL_ERROR")
    assert SECRET not in defect.text
    assert_error(limited, 429, "RATE_LIMITED")
    assert limited.headers["retry-after"] == "7"
    assert_error(other, 418, "INVALID_ARGUMENT")
    assert other.json()["error"] == "short and stout"
