"""/mcp on a real port: forms of answers, malformed messages, names without a session."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.settings import ADMIN_API_KEY, API_KEY, JWT_SECRET_KEY, make_settings
from tests.surfaces.conftest import (
    running,  # noqa: F401 - fixtures
    serve,
    url,  # noqa: F401
)

JSON = "application/json"
MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
SHAPE = {"success", "error", "code", "details", "suggestion", "retryable"}


def rpc(method: str, request_id: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def initialize(name: Any) -> dict[str, Any]:
    return rpc(
        "initialize",
        protocolVersion="2025-06-18",
        capabilities={},
        clientInfo={"name": name, "version": "1"},
    )


CREATE = rpc("tools/call", name="create_session", arguments={"purpose": "x"})


def read(response: httpx.Response) -> dict[str, Any]:
    """The message in a JSON answer, or in the one event of a stream."""
    text = response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        (text,) = [line for line in text.splitlines() if line.startswith("data: ")]
        text = text.removeprefix("data: ")
    message: dict[str, Any] = json.loads(text)
    return message


def keyed(base_url: str, api_key: str = API_KEY) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base_url, headers={"X-API-Key": api_key})


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:  # noqa: F811
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": API_KEY}) as http:
        del http.headers["accept"]
        yield http


async def created_by(http: httpx.AsyncClient, **headers: str) -> str:
    answer = await http.post("/mcp", json=CREATE, headers=headers)
    created: str = read(answer)["result"]["structuredContent"]["created_by"]
    return created


def modern(method: str) -> tuple[dict[str, Any], dict[str, str]]:
    return rpc(method, _meta=META), {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}


@pytest.mark.parametrize("era", ["modern", "handshake"])
@pytest.mark.parametrize(
    "accept, forms",
    [
        (None, {"text/event-stream", "application/json"}),
        ("*/*", {"text/event-stream", "application/json"}),
        ("text/event-stream", {"text/event-stream"}),
        ("text/*", {"text/event-stream"}),
        ("application/json", {"application/json"}),
    ],
)
async def test_an_answer_has_a_form_that_is_accepted(
    http: httpx.AsyncClient, era: str, accept: str | None, forms: set[str]
) -> None:
    message, headers = modern("tools/list") if era == "modern" else (rpc("tools/list"), {})
    if accept is not None:
        headers["Accept"] = accept
    answer = await http.post("/mcp", json=message, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] in forms
    assert len(read(answer)["result"]["tools"]) > 20


def assert_refused(
    answer: httpx.Response, status: int, code: int, request_id: Any
) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert (body["jsonrpc"], body["id"], body["error"]["code"]) == ("2.0", request_id, code)
    assert set(body["error"]["data"]) == SHAPE
    error: dict[str, Any] = body["error"]
    return error


async def test_what_is_not_acceptable_or_not_json_is_refused_in_the_one_shape(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.post("/mcp", json=rpc("ping"), headers={"Accept": "image/png"})
    assert assert_refused(answer, 406, -32600, 1)["data"]["code"] == "NOT_ACCEPTABLE"
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        answer = await http.post(
            "/mcp", content=json.dumps(rpc("ping")), headers={"Content-Type": content_type}
        )
        assert assert_refused(answer, 415, -32600, 1)["data"]["code"] == "UNSUPPORTED_MEDIA_TYPE"
    answer = await http.post("/mcp", content=json.dumps(rpc("ping")))
    assert_refused(answer, 415, -32600, 1)
    listen, headers = modern("subscriptions/listen")
    listen["params"]["notifications"] = {}
    answer = await http.post("/mcp", json=listen, headers=headers | {"Accept": "application/json"})
    assert_refused(answer, 406, -32600, 1)


@pytest.mark.parametrize(
    "content, code, request_id",
    [
        ('{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600, None),
        ('{"jsonrpc": "2.0", "id": true, "method": "ping"}', -32600, None),
        ('{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', -32600, None),
        ('{"jsonrpc": "2.0", "id": {}, "method": "ping"}', -32600, None),
        ('{"jsonrpc": "2.0", "id": 4, "method": 7}', -32600, 4),
        ('{"jsonrpc": "2.0", "id": 4, "method": "ping", "params": []}', -32600, 4),
        ('{"jsonrpc": "1.0", "id": 4, "method": "ping"}', -32600, 4),
        ("{}", -32600, None),
        ("[]", -32600, None),
        ('[{"jsonrpc": "2.0", "id": 4, "method": "ping"}]', -32600, None),
        ("7", -32600, None),
        ("", -32700, None),
        ("{", -32700, None),
        ("\ufeff{}", -32700, None),
        ("[" * 40_000, -32700, None),
        ('{"jsonrpc": "2.0", "id": 4, "method": "ping", "params": {"a": "\\ud800"}}', -32700, 4),
        ('{"jsonrpc": "2.0", "id": 4, "method": "ping", "params": {"a": NaN}}', -32700, 4),
        ('{"jsonrpc": "2.0", "id": "\\ud800", "method": "ping"}', -32700, None),
    ],
)
async def test_what_is_no_message_is_an_error_and_never_silence(
    http: httpx.AsyncClient, content: str, code: int, request_id: Any
) -> None:
    """In each version, to those with a key and to those without."""
    for _ in ("with a key", "anonymous"):
        for version in (None, "2025-03-26", "2025-06-18", MODERN):
            headers = {"Content-Type": "application/json"}
            if version is not None:
                headers["MCP-Protocol-Version"] = version
            answer = await http.post("/mcp", content=content.encode(), headers=headers)
            assert_refused(answer, 400, code, request_id)
        http.headers.pop("x-api-key", None)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer a.b.c"}], ids=["none", "wrong"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"x":['
        + b"{}," * 30_000
        + b"1]}}",
        b"[" + b"[]," * 30_000 + b"1]",
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"x":['
        + b"1," * 2_000
        + b"1]}}}",
    ],
    ids=["request", "batch", "envelope"],
)
async def test_messages_of_very_many_values_are_refused_unread(
    url: str,  # noqa: F811
    body: bytes,
    headers: dict[str, str],
) -> None:
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        answer = await client.post("/mcp", content=body, headers={"Content-Type": JSON})
    assert answer.status_code == (401 if headers else 400)
    error = answer.json()["error"]
    assert error["code"] == -32600
    assert headers or "JSON values" in error["message"]


async def test_notifications_and_responses_are_acknowledged(http: httpx.AsyncClient) -> None:
    for message in (
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
    ):
        for accept in ("*/*", "text/event-stream", "application/json"):
            answer = await http.post("/mcp", json=message, headers={"Accept": accept})
            assert (answer.status_code, answer.content) == (202, b"")


async def test_a_handshake_client_keeps_its_name_without_a_session_in_any_process(
    tmp_path: Path,
) -> None:
    """Another replica, and the same server after a restart, read the name from the id."""
    settings = make_settings(tmp_path)
    async with AsyncExitStack() as stack:
        _, first = await stack.enter_async_context(serve(settings))
        _, second = await stack.enter_async_context(serve(settings))
        http = await stack.enter_async_context(httpx.AsyncClient(headers={"X-API-Key": API_KEY}))
        given = (await http.post(f"{first}/mcp", json=initialize(" cur\nsor "))).headers
        session_id = {"Mcp-Session-Id": given["mcp-session-id"]}
        for each in (first, second):
            made = await http.post(f"{each}/mcp", json=CREATE, headers=session_id)
            assert read(made)["result"]["structuredContent"]["created_by"] == "cur sor"
    async with (
        serve(settings) as (_, third),
        httpx.AsyncClient(headers={"X-API-Key": API_KEY}) as http,
    ):
        made = await http.post(f"{third}/mcp", json=CREATE, headers=session_id)
        assert read(made)["result"]["structuredContent"]["created_by"] == "cur sor"


async def session_id_of(http: httpx.AsyncClient, name: Any, **headers: str) -> str | None:
    answer = await http.post("/mcp", json=initialize(name), headers=headers)
    return answer.headers.get("mcp-session-id")


async def test_two_clients_of_one_key_are_two_agents(http: httpx.AsyncClient) -> None:
    for name in ("claude-code", "cursor"):
        session_id = await session_id_of(http, name)
        assert session_id is not None
        assert await created_by(http, **{"Mcp-Session-Id": session_id}) == name
    assert await created_by(http) == "api-key"


async def test_a_header_and_a_bound_key_name_an_agent_before_its_session(
    http: httpx.AsyncClient,
) -> None:
    session_id = await session_id_of(http, "cursor")
    assert session_id is not None
    named = {"Mcp-Session-Id": session_id, "X-Agent-ID": "alice"}
    assert await created_by(http, **named) == "alice"
    assert await session_id_of(http, "cursor", **{"X-Agent-ID": "alice"}) is None  # no need


async def test_a_session_id_is_no_credential(http: httpx.AsyncClient, url: str) -> None:  # noqa: F811
    session_id = await session_id_of(http, "cursor")
    assert session_id is not None
    async with httpx.AsyncClient(base_url=url) as stranger:
        answer = await stranger.post("/mcp", json=CREATE, headers={"Mcp-Session-Id": session_id})
        assert read(answer)["result"]["structuredContent"]["code"] == "UNAUTHENTICATED"
        assert await session_id_of(stranger, "cursor") is None


@pytest.mark.parametrize("forged", ["junk", "scs-AAAA", "0" * 32, "x" * 5_000])
async def test_an_id_of_another_server_makes_a_client_begin_anew(
    http: httpx.AsyncClient,
    url: str,  # noqa: F811
    forged: str,
) -> None:
    headers = {"Mcp-Session-Id": forged}
    answer = await http.post("/mcp", json=CREATE, headers=headers)
    error = assert_refused(answer, 404, -32600, 1)
    assert error["data"]["code"] == "MCP_SESSION_NOT_FOUND"
    assert forged not in answer.text
    assert await session_id_of(http, "cursor", **headers)
    # Where it names nobody, it is nothing.
    assert await created_by(http, **headers, **{"X-Agent-ID": "alice"}) == "alice"
    async with httpx.AsyncClient(base_url=url) as stranger:
        listed = await stranger.post("/mcp", json=rpc("tools/list"), headers=headers)
        assert listed.status_code == 200


async def test_the_secret_of_another_server_reads_no_names(tmp_path: Path) -> None:
    async with serve(make_settings(tmp_path / "a")) as (_, first), keyed(first) as http:
        session_id = await session_id_of(http, "cursor")
        assert session_id is not None
    other = make_settings(tmp_path / "b", jwt_secret_key=JWT_SECRET_KEY[::-1])
    async with serve(other) as (_, second), keyed(second) as http:
        answer = await http.post("/mcp", json=CREATE, headers={"Mcp-Session-Id": session_id})
        assert answer.status_code == 404


async def test_the_id_is_in_no_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for logger in ("httpx", "httpcore"):  # the test's own client logs its headers
        caplog.set_level("CRITICAL", logger=logger)
    settings = make_settings(tmp_path, log_level="DEBUG")
    async with serve(settings) as (_, served), keyed(served) as http:
        session_id = await session_id_of(http, "cursor")
        assert session_id is not None
        await created_by(http, **{"Mcp-Session-Id": session_id})
        await http.post("/mcp", json=CREATE, headers={"Mcp-Session-Id": session_id + "x"})
    written = capfd.readouterr()
    assert session_id not in caplog.text + written.out + written.err


EVERY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATHS = (
    "/mcp",
    "/mcp/tool/get_time",
    "/mcp/batch",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/events",
)


@pytest.mark.parametrize("sessions", ["stateless", "stateful"])
async def test_allow_names_the_methods_that_are_answered_and_no_other(
    tmp_path: Path, sessions: str
) -> None:
    settings = make_settings(tmp_path, mcp_sessions=sessions)
    async with serve(settings) as (_, served), keyed(served, ADMIN_API_KEY) as http:
        for path in PATHS:
            answered, allowed = set(), set()
            for method in EVERY_METHOD:
                query = {"session_id": "session_0"} if path == "/events" else None
                answer = await http.request(method, path, params=query)
                if answer.status_code == 405:
                    allowed.add(answer.headers["allow"])
                else:
                    answered.add(method)
            assert allowed == {", ".join(sorted(answered))}, path


@pytest.mark.parametrize("path", ["/mcp/tool/get_time/", "/mcp/batch/", "/mcp/"])
async def test_a_slash_behind_a_path_that_is_posted_to_changes_nothing(
    http: httpx.AsyncClient, path: str
) -> None:
    body = {"/mcp/batch/": {"calls": []}, "/mcp/": rpc("ping")}.get(path, {})
    for each in (path, path.rstrip("/")):
        answer = await http.post(each, json=body)
        assert answer.status_code == 200
        assert not answer.history


@pytest.mark.parametrize("path", ["/health/", "/ready/", "/docs/", "/openapi.json/", "/metrics/"])
async def test_a_slash_behind_a_path_that_is_read_changes_nothing(
    http: httpx.AsyncClient, path: str
) -> None:
    assert (await http.get(path)).status_code == 200
    assert (await http.get(path + "/")).status_code == 404
