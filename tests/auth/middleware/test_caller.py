"""Who is calling, as the app behind the middleware finds it, and who is turned away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity
from shared_context_server.auth.middleware import (
    IdentityMiddleware,
    current_connection,
    protect,
)
from shared_context_server.storage import open_storage
from tests.auth.conftest import READ, authenticate
from tests.auth.middleware.conftest import (
    Answers,
    Script,
    assert_error,
    client_of,
    make_scope,
    part,
)
from tests.settings import API_KEY, make_settings

EXPIRED = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.AAAA"
PUBLIC = ("/health", "/docs")
LIMIT = 10_000


async def whoami(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with who is calling."""
    request = Request(scope, receive)
    connection = current_connection.get()
    answer = {
        "agent_id": connection.caller.agent_id,
        "agent_type": connection.caller.agent_type,
        "permissions": sorted(connection.caller.permissions),
        "address": connection.address,
        "refused": None if connection.refused is None else connection.refused.code,
        "body": (await request.body()).decode(),
    }
    await JSONResponse(answer)(scope, receive, send)


@pytest.fixture
def app(identity: Identity) -> IdentityMiddleware:
    return IdentityMiddleware(whoami, identity, public_paths=PUBLIC, max_body_bytes=LIMIT)


@pytest.fixture
async def client(app: IdentityMiddleware) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def test_a_bearer_names_the_caller(client: httpx.AsyncClient, identity: Identity) -> None:
    issued = await authenticate(identity)
    headers = {"Authorization": f"Bearer {issued.token}"}
    answer = (await client.post("/any", headers=headers, content=b"body")).json()
    assert answer == {
        "agent_id": "worker-7",
        "agent_type": "claude",
        "permissions": ["read", "write"],
        "address": "192.0.2.7",
        "refused": None,
        "body": "body",
    }


@pytest.mark.parametrize("name", ["worker-7", "агент", "müller"])
async def test_an_agents_name_may_be_in_any_script(client: httpx.AsyncClient, name: str) -> None:
    headers = {"X-API-Key": API_KEY, "X-Agent-ID": name.encode(), "X-Agent-Type": b"claude"}
    answer = (await client.get("/any", headers=headers)).json()  # type: ignore[arg-type]
    assert (answer["agent_id"], answer["agent_type"]) == (name, "claude")


async def test_a_name_in_latin_1_is_understood_too(client: httpx.AsyncClient) -> None:
    headers = {"X-API-Key": API_KEY, "X-Agent-ID": "müller".encode("latin-1")}
    assert (await client.get("/any", headers=headers)).json()["agent_id"] == "müller"  # type: ignore[arg-type]


async def test_the_anonymous_pass_as_nobody(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/any")).json()
    assert (answer["agent_id"], answer["permissions"], answer["refused"]) == ("", [], None)


async def test_nothing_of_a_request_outlives_it(client: httpx.AsyncClient) -> None:
    await client.get("/any", headers={"X-API-Key": API_KEY})
    assert current_connection.get() == Connection()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": EXPIRED},
        {"Authorization": "Basic YTpi"},
        {"Authorization": EXPIRED, "X-API-Key": API_KEY},
        {"X-API-Key": "wrong-key-0123456789"},
    ],
)
@pytest.mark.parametrize("path", ["/mcp/tool/get_messages", "/events", "/mcp", "/nowhere"])
async def test_a_bad_credential_is_401(
    client: httpx.AsyncClient, headers: dict[str, str], path: str
) -> None:
    for method in ("GET", "POST"):
        response = await client.request(method, path, headers=headers)
        assert_error(response, 401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"] == "Bearer"
        assert not any(value.split()[-1] in response.text for value in headers.values())


async def test_other_refusals_have_their_own_status(
    client: httpx.AsyncClient, identity: Identity
) -> None:
    headers = {"X-API-Key": API_KEY, "X-Agent-ID": "x" * 129}
    body = assert_error(await client.get("/any", headers=headers), 400, "INVALID_ARGUMENT")
    assert body["details"] == {"field": "X-Agent-ID"}
    _, key = await identity.keys.create("bound-1", [READ])
    response = await client.get("/any", headers={"X-API-Key": key, "X-Agent-ID": "another"})
    assert_error(response, 403, "PERMISSION_DENIED")
    assert "www-authenticate" not in response.headers


@pytest.mark.parametrize("path", ["/health", "/docs", "/docs/"])
async def test_public_paths_ask_nobody(client: httpx.AsyncClient, path: str) -> None:
    answer = (await client.get(path, headers={"Authorization": EXPIRED})).json()
    assert (answer["agent_id"], answer["refused"]) == ("", None)


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def call(tool: str) -> dict[str, Any]:
    return rpc("tools/call", name=tool, arguments={})


OVER_MCP = [
    rpc("initialize"),
    rpc("ping"),
    rpc("server/discover"),
    rpc("tools/list"),
    rpc("notifications/initialized"),
    call("authenticate_agent"),
    call("get_messages"),
    [],
    {},
    "initialize",
    None,
]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
@pytest.mark.parametrize("message", OVER_MCP)
async def test_a_bad_bearer_reaches_nothing_over_mcp(
    client: httpx.AsyncClient, message: Any, path: str
) -> None:
    response = await client.post(path, json=message, headers={"Authorization": EXPIRED})
    assert_error(response, 401, "UNAUTHENTICATED")


async def test_a_bad_bearer_with_a_body_that_is_no_json_is_401(client: httpx.AsyncClient) -> None:
    response = await client.post("/mcp", content=b"{", headers={"Authorization": EXPIRED})
    assert_error(response, 401, "UNAUTHENTICATED")


async def test_a_bad_bearer_does_not_stand_in_the_way_of_authenticating_by_rest(
    client: httpx.AsyncClient,
) -> None:
    headers = {"Authorization": EXPIRED}
    response = await client.post("/mcp/tool/authenticate_agent", content=b"x", headers=headers)
    assert (response.status_code, response.json()["body"]) == (200, "x")


@pytest.mark.parametrize(
    "calls, passes",
    [
        ([{"tool": "authenticate_agent"}], True),
        ([{"tool": "authenticate_agent"}] * 2, True),
        ([{"tool": "authenticate_agent"}, {"tool": "get_messages"}], False),
        ([], False),
        (["authenticate_agent"], False),
        ({"tool": "authenticate_agent"}, False),
    ],
)
async def test_a_bad_bearer_may_batch_authentications_only(
    client: httpx.AsyncClient, calls: Any, passes: bool
) -> None:
    response = await client.post(
        "/mcp/batch", json={"calls": calls}, headers={"Authorization": EXPIRED}
    )
    assert response.status_code == (200 if passes else 401)


async def test_a_bad_bearers_endless_body_is_not_read_to_its_end(app: IdentityMiddleware) -> None:
    script = Script(*[part(b"x" * LIMIT, more=True)] * 10)
    answers = Answers()
    await app(make_scope(path="/mcp", authorization=EXPIRED), script, answers)
    assert answers.status == 401
    assert len(script.waiting) == 8


async def test_a_client_that_leaves_with_its_bad_bearer_is_not_answered(
    app: IdentityMiddleware,
) -> None:
    answers = Answers()
    await app(make_scope(path="/mcp", authorization=EXPIRED), Script(), answers)
    assert answers.messages == []


async def test_a_store_that_does_not_answer_is_503_except_on_public_paths(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with open_storage(settings) as store:
        identity = Identity(store, settings)
    app = IdentityMiddleware(whoami, identity, public_paths=PUBLIC, max_body_bytes=LIMIT)
    async with client_of(app) as client:
        response = await client.get("/any")
        assert_error(response, 503, "UNAVAILABLE")
        assert response.headers["retry-after"] == "1"
        assert (await client.get("/health")).status_code == 200


async def test_what_is_not_http_passes(identity: Identity) -> None:
    seen = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    protected = protect(
        app, settings=make_settings(Path("/nowhere")), identity=identity, public_paths=()
    )
    await protected({"type": "lifespan"}, Script(), Answers())
    assert seen == ["lifespan"]


async def test_all_layers_together_protect_an_app(tmp_path: Path, identity: Identity) -> None:
    settings = make_settings(
        tmp_path,
        cors_origins="https://app.example",
        allowed_hosts="hub.example",
        max_body_bytes=1024,
    )
    app = protect(whoami, settings=settings, identity=identity, public_paths=PUBLIC)
    headers = {"X-API-Key": f" {API_KEY} ", "X-Agent-ID": "worker-7\t", "Host": "hub.example"}
    async with client_of(app, **headers) as client:
        assert (await client.post("/mcp/")).json()["agent_id"] == "worker-7"
        too_large = await client.post("/", content=b"x" * 1025)
        assert_error(too_large, 413, "CONTENT_TOO_LARGE")
        page = {"Origin": "https://app.example"}
        refused = await client.get("/", headers=page | {"Authorization": EXPIRED})
        assert_error(refused, 401, "UNAUTHENTICATED")
        over_mcp = await client.post(
            "/mcp", json=rpc("ping"), headers=page | {"Authorization": EXPIRED}
        )
        assert over_mcp.json()["error"]["data"]["code"] == "UNAUTHENTICATED"
        assert over_mcp.headers["access-control-allow-origin"] == "https://app.example"
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        asked = page | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-api-key,mcp-protocol-version",
        }
        preflight = await client.options("/mcp", headers=asked)
        assert preflight.status_code == 200
        assert "x-api-key" in preflight.headers["access-control-allow-headers"]
