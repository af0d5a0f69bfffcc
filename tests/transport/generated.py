"""Requests as clients might send them: right in most of their parts, and odd in a few."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.transport.pairs import GIVEN_SESSION_ID, KEY, Request

BOTH = "application/json, text/event-stream"
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"

ARGUMENTS: dict[str, list[Any]] = {
    "get_messages": [{"session_id": "<session>"}, {"session_id": "none"}, {"session_id": 5}],
    "add_message": [
        {"session_id": "<session>", "content": "häl\u2028lo \U0001f600 </script>"},
        {"session_id": "<session>", "content": "x", "metadata": {"a": [None, 1.5, {"b": True}]}},
        {"session_id": "<session>", "content": ""},
        {"session_id": "<session>", "content": "x", "unknown": 1},
    ],
    "list_sessions": [{}, {"limit": 1}, {"limit": "1"}, {"limit": None}, {"auth_token": "wrong"}],
    "get_memory": [{"key": "missing"}, {"key": ""}, {}],
    "set_memory": [{"key": "k", "value": {"deep": [[[]]]}}, {"key": "k", "value": None}],
    "wait_for_messages": [{"session_id": "<session>", "timeout_seconds": 0}],
    "authenticate_agent": [{"agent_id": "eve", "api_key": "wrong"}, {"agent_id": "\0"}],
    "get_audit_log": [{}],
    "nope": [{}, {"a": 1}],
}
ENVELOPE = {
    f"{META}protocolVersion": MODERN,
    f"{META}clientInfo": {"name": "some client", "version": "1.0"},
    f"{META}clientCapabilities": {},
}
OLD_VERSIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
CREDENTIALS = [
    [("x-api-key", KEY), ("x-agent-id", "alice")],
    [("x-api-key", KEY)],
    [],
    [("x-api-key", "wrong")],
    [("authorization", "Bearer wrong")],
]
MISSING: Any = object()
METHODS = [
    *["tools/call"] * 12,
    *("tools/list", "initialize", "ping", "server/discover", "prompts/list", "resources/list"),
    *("notifications/initialized", "notifications/cancelled", "logging/setLevel", "what/ever"),
]
IDS = [
    *(0, -1, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, 2**70, 1.0, 1.5, -0.0, 1e300),
    *("", "a", "1", "\0", "\u2028", "\U0001f600", "é" * 300, "x" * 256, "x" * 257),
    *(None, True, False, [], {}, [1], MISSING),
]
ACCEPTS = [
    *("application/json", "text/event-stream", "*/*", "text/html", "", MISSING),
    *("application/*", "text/*", "*/*;q=0.1", "text/event-stream, application/json"),
    *("application/json;q=0, text/event-stream", "APPLICATION/JSON, Text/Event-Stream"),
    *("application/json, */*", ", ,", "application/json; charset=utf-8", "application/jsonx"),
]
CONTENT_TYPES = [
    *(MISSING, "", "a/b", "text/json", "text/plain", "application/x-www-form-urlencoded"),
    *("application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"),
    *('application/json; charset="utf-8"', "application/json; charset=utf-16"),
    *("application/json; charset=latin-1", "application/json; charset=none-such"),
    *("application/json;", " application/json ", "application/json, application/json"),
    *("application/json-rpc", "application/vnd.api+json", "multipart/form-data; boundary=x"),
]
VERSIONS = [MODERN, MODERN, *OLD_VERSIONS, None]
ODD_VERSIONS = [
    *("1999-01-01", "2099-01-01", "", "draft", f"{MODERN} ", "2025-06-18, 2025-06-18"),
    *(MODERN, "2025-11-25", MISSING),
]
MORE_HEADERS = [
    *(("mcp-session-id", value) for value in (GIVEN_SESSION_ID, "none-of-ours", "")),
    *(("mcp-param-limit", "1"), ("mcp-param-session-id", "x"), ("last-event-id", "5")),
    *(("content-encoding", "gzip"), ("origin", "http://other.example"), ("host", "other.example")),
    *(("x-agent-id", "\xe9"), ("x-agent-type", "")),
]
ODD_METAS: dict[str, list[Any]] = {
    f"{META}protocolVersion": ["2025-06-18", "2099-01-01", MODERN, 5, None],
    f"{META}clientInfo": [
        *(None, {}, {"name": "a"}, {"name": 5, "version": "1"}, "x", {"name": "", "version": ""}),
        {"name": "a", "version": "1", "title": "A", "icons": [{"src": "https://a.example/a.png"}]},
        {"name": "a" * 3000, "version": "1"},
    ],
    f"{META}clientCapabilities": [
        *(None, {"roots": {}}, {"unknown": 1}, [], {"sampling": 5}, {"roots": {"listChanged": 1}}),
        {"elicitation": {"form": {}, "url": {}}, "experimental": {"x": {}}, "extensions": {}},
    ],
    f"{META}logLevel": ["debug", "loud", 5, None],
    f"{META}other": [1, {}],
    f"{META}related-task": [{"taskId": "t"}, 1],
    "progressToken": [1, 0, "p", "", None, 1.5, {}, True, 2**70],
    "claudecode/toolUseId": ["toolu_1", 5],
    "threadId": ["t-1", None],
    "fastmcp": [{"version": "1"}, {}],
    "_fastmcp": [{"version": "1"}],
    "": [1],
    "é\u2028": [[None, {"a": 1.5}]],
    "traceparent": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", 5],
}
OTHERS = {
    "mcp-protocol-version": "2025-03-26",
    "mcp-method": "tools/list",
    "mcp-name": "get_messages",
    "accept": "application/json",
    "content-type": "text/plain",
}
# What may be odd of a request. Most have one or two of these: in a request that is odd everywhere the first
# fault hides the others.
PARTS = (
    *(
        "jsonrpc",
        "id",
        "method",
        "params",
        "name",
        "arguments",
        "extra",
        "more",
        "_meta",
        "envelope",
    ),
    *(
        "shape",
        "bytes",
        "accept",
        "content type",
        "credentials",
        "version",
        "mcp-method",
        "mcp-name",
    ),
    *("headers", "duplicate", "conflict"),
)


class Choice:
    """Draws the parts of one request: the usual, but for those parts that are to be odd."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self._odd = draw(st.lists(st.sampled_from(PARTS), max_size=3, unique=True))

    def of(self, part: str, usual: Any, odd: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(odd)) if part in self._odd else usual


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request that is right in most of its parts, and odd in a few."""
    choose = Choice(draw)
    version = draw(st.sampled_from(VERSIONS))
    method = draw(st.sampled_from(METHODS))
    params = draw_params(choose, method)
    name = params.get("name")
    envelope = choose.of(
        "envelope", ENVELOPE if version == MODERN else MISSING, [MISSING, ENVELOPE]
    )
    meta = draw_meta(choose, envelope)
    if meta is not MISSING:
        params["_meta"] = meta
    message = {
        "jsonrpc": choose.of("jsonrpc", "2.0", ["1.0", MISSING, 2, None]),
        "id": choose.of("id", draw(st.sampled_from([1, "a"])), IDS),
        "method": choose.of("method", method, [5, None, MISSING, "", method.upper(), f"{method} "]),
        "params": choose.of("params", params, [[], None, MISSING, "x", 5, [params]]),
        **choose.of(
            "more", {}, [{"more": 1}, {"more": None}, {"result": {}}, {"error": {"code": 1}}]
        ),
    }
    if method.startswith("notifications/"):
        message["id"] = choose.of("id", MISSING, IDS)
    message = {key: value for key, value in message.items() if value is not MISSING}
    return Request(draw_body(choose, message), draw_headers(choose, version, method, name))


def draw_params(choose: Choice, method: str) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if method == "tools/call":
        name = choose.draw(st.sampled_from(list(ARGUMENTS)))
        arguments = choose.draw(st.sampled_from(ARGUMENTS[name]))
        params = {
            "name": choose.of("name", name, [5, None, MISSING, "", name.upper(), f" {name}"]),
            "arguments": choose.of(
                "arguments", arguments, [[], None, MISSING, "x", 5, [arguments]]
            ),
        }
    elif method == "initialize":
        info = {"name": "a client", "version": "1"}
        known = choose.draw(st.sampled_from(OLD_VERSIONS))
        params = {
            "protocolVersion": choose.of("name", known, ["1999", MODERN, 5, None, MISSING]),
            "capabilities": choose.of("arguments", {}, [{"roots": {}}, {"x": 1}, None, MISSING]),
            "clientInfo": choose.of(
                "extra", info, [{"name": "a"}, None, {**info, "name": 5}, MISSING]
            ),
        }
    elif method == "logging/setLevel":
        params = {"level": choose.of("name", "info", ["loud", 5, MISSING])}
    odd = [
        {"extra": 1},
        {"extra": {"a": 1}},
        {"task": {"ttl": 5}},
        {"cursor": "x"},
        {"cursor": None},
    ]
    odd += [{"inputResponses": {}}, {"requestState": "x"}, {"cursor": 5}]
    params |= choose.of("extra", {}, odd)
    return {key: value for key, value in params.items() if value is not MISSING}


def draw_meta(choose: Choice, envelope: Any) -> Any:
    name = choose.draw(st.sampled_from(list(ODD_METAS)))
    known = {} if envelope is MISSING else envelope
    without = {key: value for key, value in known.items() if key != name}
    odd = [{**known, name: value} for value in ODD_METAS[name]]
    return choose.of("_meta", envelope, [*odd, without, None, [], "x", {}])


def draw_body(choose: Choice, message: dict[str, Any]) -> bytes:
    body = json.dumps(message, ensure_ascii=choose.draw(st.booleans())).encode()
    shapes = [
        b"[%b]" % body,
        b"[%b,%b]" % (body, body),
        b"[]",
        b"",
        b" ",
        b"{",
        b"{}",
        b"null",
        b"5",
    ]
    shapes += [body + body, body + b"}", body[:-1], b'"x"', b"[[]]"]
    body = choose.of("shape", body, shapes)
    odd = [
        *(
            body.replace(b"1", number, 1)
            for number in (b"NaN", b"-Infinity", b"1e999", b"01", b"1.")
        ),
        *(body.replace(b'"x"', text, 1) for text in (b'"\\ud83d"', b'"\\u0000"', b'"\n"', b"'x'")),
        *(b"\xef\xbb\xbf" + body, b"\xff" + body, body.decode().encode("utf-16")),
        *(b" \r\n\t" + body + b"\n ", body + b"\0", b"\x0c" + body, b"\xc2\xa0" + body),
        body.replace(b"{", b'{"id": 2, ', 1),
        body.replace(b"{", b'{"method": "ping", ', 1),
        b"//\n" + body,
        body.replace(b",", b" ,\n"),
    ]
    return bytes(choose.of("bytes", body, odd))


def draw_headers(
    choose: Choice, version: str | None, method: str, name: object
) -> list[tuple[str, str]]:
    said = {
        "accept": choose.of("accept", BOTH, ACCEPTS),
        "content-type": choose.of("content type", "application/json", CONTENT_TYPES),
        "mcp-protocol-version": choose.of("version", version or MISSING, ODD_VERSIONS),
    }
    is_modern = version == MODERN
    encoded = "=?base64?bGlzdF9zZXNzaW9ucw==?="  # list_sessions
    for header, usual, odd in (
        ("mcp-method", method, [MISSING, "ping", "", method.upper(), f" {method}"]),
        ("mcp-name", name, [MISSING, "get_time", "", encoded, str(name).upper()]),
    ):
        is_usual = is_modern and isinstance(usual, str)
        said[header] = choose.of(header, usual if is_usual else MISSING, odd)
    headers = [(key, value) for key, value in said.items() if value is not MISSING]
    headers += choose.of("credentials", CREDENTIALS[0], CREDENTIALS)
    headers += choose.of("headers", [], [[more] for more in MORE_HEADERS])
    headers += choose.of("duplicate", [], [[header] for header in headers])
    others = [(key, OTHERS.get(key, "other")) for key, _ in headers]
    return [*headers, *choose.of("conflict", [], [[other] for other in others])]
