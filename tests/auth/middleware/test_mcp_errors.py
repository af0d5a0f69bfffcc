"""Refusals on /mcp as JSON-RPC errors, whoever refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared_context_server.auth.middleware import McpErrorMiddleware
from shared_context_server.auth.middleware.answers import send_error
from shared_context_server.errors import RateLimited, Unauthenticated, Unavailable
from tests.auth.middleware.conftest import (
    ERROR_SHAPE,
    Answers,
    Script,
    client_of,
    make_scope,
    part,
)

LIMIT = 1_000


def refusing(response: ASGIApp) -> McpErrorMiddleware:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        await response(scope, receive, send)

    return McpErrorMiddleware(app, LIMIT)


def failing(error: Exception) -> McpErrorMiddleware:
    async def response(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_error(send, error)  # type: ignore[arg-type]

    return refusing(response)


@pytest.mark.parametrize("request_id", [7, "seven", 0])
async def test_a_refusal_carries_the_requests_id_and_says_what_to_do(request_id: Any) -> None:
    async with client_of(failing(Unauthenticated("No.", suggestion="Do this."))) as client:
        answer = await client.post("/mcp", json={"jsonrpc": "2.0", "id": request_id})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert (body["jsonrpc"], body["id"]) == ("2.0", request_id)
    assert (body["error"]["code"], body["error"]["message"]) == (-32600, "No. Do this.")
    assert set(body["error"]["data"]) == ERROR_SHAPE


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": true}', b'{"id": 1.5}', b"7"])
async def test_a_request_without_an_id_that_can_be_used_is_refused_under_none(
    content: bytes,
) -> None:
    async with client_of(failing(Unauthenticated("No."))) as client:
        body = (await client.post("/mcp", content=content)).json()
    assert body["id"] is None


async def test_a_fault_of_ours_has_another_number_and_keeps_its_headers() -> None:
    for error in (Unavailable(), RateLimited(3)):
        async with client_of(failing(error)) as client:
            answer = await client.post("/mcp", json={"id": 1})
        assert answer.status_code == error.status
        assert answer.headers["retry-after"] == str(error.retry_after_s)
        assert answer.json()["error"]["code"] == (-32603 if error.status == 503 else -32600)


@pytest.mark.parametrize(
    "response, message",
    [
        (PlainTextResponse("Not here", 404), "Not here"),
        (Response(status_code=406), "Not Acceptable"),
    ],
)
async def test_what_another_layer_says_in_its_own_words_is_told_in_the_one_shape(
    response: Response, message: str
) -> None:
    async with client_of(refusing(response)) as client:
        answer = await client.post("/mcp", json={"id": 1})
    assert answer.status_code == response.status_code
    assert answer.json()["error"]["data"]["error"] == message
    assert set(answer.json()["error"]["data"]) == ERROR_SHAPE


async def test_the_sdks_own_errors_and_all_successes_pass() -> None:
    theirs = {
        "jsonrpc": "2.0",
        "id": 1,
        "error": {"code": -32022, "message": "x", "data": {"a": 1}},
    }
    for response in (JSONResponse(theirs, 400), JSONResponse({"a": 1})):
        async with client_of(refusing(response)) as client:
            answer = await client.post("/mcp", json={"id": 1})
        assert answer.json() == json.loads(response.body)


async def test_elsewhere_errors_keep_their_form() -> None:
    async with client_of(failing(Unauthenticated("No."))) as client:
        assert (await client.post("/mcp/batch", json={"id": 1})).json()["code"] == "UNAUTHENTICATED"


async def test_an_endless_body_is_not_kept_for_its_id() -> None:
    script = Script(part(b'{"id": 1, "a": "', more=True), *[part(b"x" * LIMIT, more=True)] * 3)
    script.waiting.append(part(b'"}', more=False))
    answers = Answers()
    await failing(Unauthenticated("No."))(make_scope(path="/mcp"), script, answers)
    assert answers.status == 401
    assert answers.body["id"] is None


@pytest.mark.parametrize(
    "status, message, code",
    [
        (404, "Session not found", "MCP_SESSION_NOT_FOUND"),
        (400, "Bad Request: Missing session ID", "INVALID_ARGUMENT"),
    ],
)
async def test_what_the_sdk_refuses_without_an_id_gets_the_requests_id_and_our_data(
    status: int, message: str, code: str
) -> None:
    sdks = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}}
    async with client_of(refusing(JSONResponse(sdks, status))) as client:
        answer = await client.post("/mcp", json={"jsonrpc": "2.0", "id": 7, "method": "ping"})
    body = answer.json()
    assert (answer.status_code, body["id"]) == (status, 7)
    assert (body["error"]["code"], body["error"]["message"]) == (-32600, message)
    assert body["error"]["data"]["code"] == code
    assert set(body["error"]["data"]) == ERROR_SHAPE
