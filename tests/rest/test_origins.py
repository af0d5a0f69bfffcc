"""Pages of other origins and requests for other hosts, on every HTTP surface."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from shared_context_server.server import Server, open_server
from tests.rest.conftest import assert_error, call, client_of
from tests.settings import API_KEY, make_settings

ROUTES = [
    ("POST", "/mcp/tool/list_sessions"),
    ("POST", "/mcp/batch"),
    ("POST", "/mcp"),
    ("GET", "/mcp/"),
    ("GET", "/events"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize("method, path", ROUTES)
async def test_no_route_answers_another_origin_or_for_another_host(
    server: Server, method: str, path: str
) -> None:
    async with client_of(server, X_API_Key=API_KEY) as client:
        for origin in ("http://127.0.0.1:3000", "http://localhost:23456", "null"):
            response = await client.request(method, path, headers={"Origin": origin})
            assert_error(response, 403, "ORIGIN_NOT_ALLOWED", "Origin")
            assert "access-control-allow-origin" not in response.headers
        response = await client.request(method, path, headers={"Host": "rebound.example"})
        assert_error(response, 421, "HOST_NOT_ALLOWED", "Host")
        response = await client.request(method, path, headers={"Host": "127.0.0.1:1, evil.com"})
        assert_error(response, 400, "MALFORMED_REQUEST")


@pytest.mark.parametrize("path", ["/mcp/tool/create_session", "/mcp/batch", "/mcp"])
async def test_without_authentication_a_form_of_another_site_writes_nothing(
    tmp_path: Path, path: str
) -> None:
    async with (
        open_server(make_settings(tmp_path, auth_enabled=False)) as server,
        client_of(server) as client,
    ):
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            response = await client.post(
                path, content=b'{"purpose": "p"}', headers={"Content-Type": kind}
            )
            assert_error(response, 415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type")
        assert (await call(client, "list_sessions"))["sessions"] == []


async def test_a_page_that_the_server_has_served_may_call_it(agent: httpx.AsyncClient) -> None:
    headers = {"Origin": "http://127.0.0.1:23456"}
    response = await agent.post("/mcp/tool/list_sessions", json={}, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path, allowed",
    [
        ("/health", "GET, HEAD"),
        ("/ready", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/events", "GET, HEAD"),
        ("/mcp/tool/get_time", "POST"),
        ("/mcp/batch", "POST"),
    ],
)
async def test_other_methods_are_told_which_there_are(
    server: Server, method: str, path: str, allowed: str
) -> None:
    async with client_of(server, X_API_Key=API_KEY) as client:
        if method in allowed:
            if path != "/events":  # a stream; its own tests ask for its head
                response = await client.request(method, path)
                assert response.status_code == 200
                assert response.content == b"" or method != "HEAD"
            return
        response = await client.request(method, path)
        assert response.status_code == 405
        assert response.headers["allow"] == allowed
