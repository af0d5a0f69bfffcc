"""Trimmed header values, slashes at the end of paths, and accepted hosts and origins."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from shared_context_server.auth.middleware import (
    HeadMiddleware,
    HostOriginMiddleware,
)
from tests.auth.middleware.conftest import (
    Answers,
    Script,
    assert_error,
    client_of,
    dial,
    echo,
    listening,
    make_scope,
    read_answer,
)


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_spaces_around_header_values_do_not_reach_the_app(http: str) -> None:
    async with listening(HeadMiddleware(echo), http=http) as port, dial(port) as sides:
        reader, writer = sides
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nMcp-Name: \t get_time \t \r\nEmpty:  \r\n\r\n")
        _, _, body = await read_answer(reader)
        headers = json.loads(body)["headers"]
        assert (headers["mcp-name"], headers["empty"]) == ("get_time", "")


@given(st.binary(max_size=20))
async def test_only_spaces_and_tabs_are_trimmed(value: bytes) -> None:
    seen = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["headers"])

    scope = {"type": "http", "path": "/", "headers": [(b"a", b"1"), (b"b", value)]}
    await HeadMiddleware(app)(scope, Script(), Answers())
    assert seen == [[(b"a", b"1"), (b"b", value.strip(b" \t"))]]
    assert scope["headers"] == [(b"a", b"1"), (b"b", value)]


@pytest.mark.parametrize(
    "path, served",
    [
        ("/mcp", "/mcp"),
        ("/mcp/", "/mcp"),
        ("/mcp//", "/mcp/"),
        ("/mcp/tool/x/", "/mcp/tool/x"),
        ("/m%C3%A4h/", "/m%C3%A4h"),
        ("/", "/"),
    ],
)
async def test_a_path_with_a_slash_behind_it_is_served_without_a_redirect(
    path: str, served: str
) -> None:
    async with client_of(HeadMiddleware(echo)) as client:
        answer = await client.post(path)
        assert answer.status_code == 200
        assert (quote(answer.json()["path"]), answer.json()["raw_path"]) == (served, served)


async def test_the_root_of_an_app_behind_a_root_path_keeps_its_slash() -> None:
    seen = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["path"])

    middleware = HeadMiddleware(app)
    for path in ("/behind/proxy/mcp/", "/behind/proxy/"):
        scope = {**make_scope(path=path), "root_path": "/behind/proxy"}
        await middleware(scope, Script(), Answers())
    assert seen == ["/behind/proxy/mcp", "/behind/proxy/"]


def guarded(*hosts: str, origins: tuple[str, ...] = ()) -> HostOriginMiddleware:
    return HostOriginMiddleware(echo, allowed_hosts=hosts, allowed_origins=origins)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:23456", "[::1]:23456", "LOCALHOST:1"])
async def test_loopback_names_are_accepted(host: str) -> None:
    async with client_of(guarded(), host=host) as client:
        for _ in range(2):
            assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io"])
async def test_other_names_are_refused_in_the_one_error_shape(host: str) -> None:
    app = guarded()
    for _ in range(2):
        answers = Answers()
        await app(make_scope(host=host), Script(), answers)
        assert answers.status == 421
        assert answers.body["code"] == "HOST_NOT_ALLOWED"
        assert answers.body["details"] == {"field": "Host"}


async def test_allowed_hosts_are_accepted_and_a_star_means_any() -> None:
    async with client_of(guarded("hub.example"), host="hub.example:8000") as client:
        assert (await client.get("/")).status_code == 200
    async with client_of(guarded("*"), host="anything.example") as client:
        assert (await client.get("/")).status_code == 200


async def test_pages_of_other_sites_are_refused() -> None:
    async with client_of(guarded(origins=("https://app.example",))) as client:
        for origin in (
            "https://evil.example",
            "null",
            "http://app.example",
            "http://localhost:8080",  # another port of the same machine
            "https://localhost",
            "http://127.0.0.1",
            "http://x@localhost",
            "http://localhost.evil.example",
        ):
            response = await client.get("/", headers={"Origin": origin})
            body = assert_error(response, 403, "ORIGIN_NOT_ALLOWED")
            assert body["details"] == {"field": "Origin"}
        for origin in ("https://app.example", "http://localhost"):
            response = await client.get("/", headers={"Origin": origin})
            assert response.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:1, evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1:1@evil.example",
        "127.0.0.1:1:2",
        "127.0.0.1/evil",
        "[::1]evil",
        "127.0.0.1:123456",
    ],
)
async def test_what_is_no_host_is_400(host: str) -> None:
    answers = Answers()
    await guarded("*")(make_scope(host=host), Script(), answers)
    assert (answers.status, answers.body["code"]) == (400, "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "name", ["host", "origin", "authorization", "x-api-key", "x-agent-id", "content-type"]
)
async def test_a_header_that_says_who_or_what_comes_once(name: str) -> None:
    scope = make_scope(host="localhost")
    scope["headers"] += [(name.encode(), b"localhost")] * 2
    answers = Answers()
    await guarded()(scope, Script(), answers)
    assert (answers.status, answers.body["code"]) == (400, "MALFORMED_REQUEST")


async def test_a_page_served_here_is_known_by_scheme_host_and_port() -> None:
    async with client_of(guarded("hub.example"), host="hub.example:8000") as client:
        for origin, status in (
            ("http://hub.example:8000", 200),
            ("HTTP://HUB.example:8000", 200),
            ("http://hub.example", 403),
            ("https://hub.example:8000", 403),
        ):
            assert (await client.get("/", headers={"Origin": origin})).status_code == status
    async with client_of(guarded(), host="[::1]:80") as client:
        assert (await client.get("/", headers={"Origin": "http://[::1]"})).status_code == 200


async def test_without_authentication_a_post_has_to_be_declared_as_json() -> None:
    app = HostOriginMiddleware(echo, allowed_hosts=(), allowed_origins=(), is_json_required=True)
    async with client_of(app) as client:
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            None,
        ):
            headers = {} if kind is None else {"Content-Type": kind}
            response = await client.post("/", content=b"{}", headers=headers)
            assert_error(response, 415, "UNSUPPORTED_MEDIA_TYPE")
        for kind in ("application/json", "Application/JSON; charset=utf-8"):
            response = await client.post("/", content=b"{}", headers={"Content-Type": kind})
            assert response.status_code == 200
        assert (await client.post("/")).status_code == 200
    async with client_of(guarded()) as client:
        assert (await client.post("/", content=b"{}")).status_code == 200


async def test_an_accepted_host_does_not_open_the_way_for_another_origin() -> None:
    app = guarded()
    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 200
        assert_error(
            await client.get("/", headers={"Origin": "https://evil.example"}),
            403,
            "ORIGIN_NOT_ALLOWED",
        )


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_not_http_passes(kind: str) -> None:
    seen = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    inner = HeadMiddleware(app)
    guard = HostOriginMiddleware(inner, allowed_hosts=(), allowed_origins=())
    await HeadMiddleware(guard)({"type": kind, "headers": []}, Script(), Answers())
    assert seen == [kind]


@pytest.mark.parametrize(
    "request_line, status",
    [
        ("GET /health HTTP/1.0", 200),
        ("GET /ready HTTP/1.0", 200),
        ("GET /docs HTTP/1.0", 421),
        ("GET /health HTTP/1.1", 421),
    ],
)
async def test_a_probe_in_http_1_0_needs_no_host(request_line: str, status: int) -> None:
    async with listening(guarded()) as port, dial(port) as (reader, writer):
        writer.write(f"{request_line}\r\n\r\n".encode())
        assert (await read_answer(reader))[0] == status


async def test_a_probe_that_names_another_host_is_refused() -> None:
    async with listening(guarded()) as port, dial(port) as (reader, writer):
        writer.write(b"GET /health HTTP/1.0\r\nHost: evil.example\r\n\r\n")
        assert (await read_answer(reader))[0] == 421
