"""No credential gets through the redactor, however it is written."""

from __future__ import annotations

import json
import string
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.auth.keys import generate_key
from shared_context_server.auth.tokens import TokenClaims, TokenSigner, make_handle
from shared_context_server.models import Permission
from shared_context_server.observability.redaction import REDACTED, Redactor

WORD = string.ascii_letters + string.digits + "_-"
NAMES = (
    "api_key",
    "API_KEY",
    "apiKey",
    "X-API-Key",
    "x_api_key",
    "admin_api_key",
    "ADMIN_API_KEY",
    "token",
    "auth_token",
    "accessToken",
    "refresh-token",
    "JWT_SECRET_KEY",
    "secret",
    "client_secret",
    "password",
    "passwd",
    "Authorization",
    "authorization",
    "agent_handle",
    "Cookie",
    "Set-Cookie",
    "credentials",
)

names = st.sampled_from(NAMES)
passwords = st.text("abcxyz0189+/=!$%^*~?", min_size=12, max_size=40).map(lambda text: f"Zq{text}")


def redact(value: Any, *known: str) -> str:
    """All that is left of an event with this value, as text."""
    event = Redactor(known)(None, "info", {"event": "e", "value": value})
    return json.dumps(event, ensure_ascii=False)


def make_token() -> str:
    claims = TokenClaims("jti", "agent", "claude", frozenset(Permission), "key_1", 1, 2)
    return TokenSigner(b"0123456789" * 4).encode(claims)


@pytest.mark.parametrize("make", [make_token, make_handle, generate_key])
@pytest.mark.parametrize(
    "template",
    ["%s", "got %s.", "(%s)", "x=%s&y=1", '{"a": "%s"}', "'%s'", "https://h/%s/p", "é%sé"],
)
def test_our_own_credentials_are_known_by_their_shape(make: Any, template: str) -> None:
    secret = make()
    text = template % secret
    for value in (text, text.encode(), [text], {"a": {"b": (text,)}}, {text: 1}, ValueError(text)):
        left = redact(value)
        assert secret not in left
        for part in secret.split("."):
            assert part not in left


@given(name=names, secret=passwords)
def test_what_is_under_a_sensitive_name_is_hidden(name: str, secret: str) -> None:
    nested = {"a": [{"b": {name: secret}}]}
    for value in (
        {name: secret},
        nested,
        {name: [secret]},
        {name: {"a": secret}},
        {name.encode(): secret},
    ):
        assert secret not in redact(value)
    event = Redactor()(None, "info", {"event": "e", name: secret})
    assert secret not in json.dumps(event)


@given(name=names, secret=passwords)
def test_headers_are_hidden_in_every_form(name: str, secret: str) -> None:
    raw = (name.lower().encode(), secret.encode())
    for value in (raw, [raw], {"headers": [raw]}, repr([raw]), repr({name: secret})):
        assert secret not in redact(value)


@given(name=names, secret=passwords)
def test_assignments_in_texts_are_hidden(name: str, secret: str) -> None:
    body = json.dumps({"a": 1, name: secret, "b": 2})
    for text in (
        f"{name}={secret}",
        f"{name}: {secret}",
        f"{name} = '{secret}', next",
        f"GET /x?{name}={quote(secret, safe='')}&b=1",
        body,
        json.dumps({"body": body}),
        json.dumps(json.dumps(json.dumps(body))),
        repr({name: secret}),
        f"Arguments({name}={secret!r}, b=1)",
        f"the error was: {name}: Bearer {secret}\nnext line",
        f"Authorization: Digest realm=x, response={secret}\nnext line",
    ):
        assert secret not in redact(text), text
        assert quote(secret, safe="") not in redact(text), text


@given(scheme=st.sampled_from(["Bearer", "bearer", "Basic"]), secret=passwords)
def test_what_follows_a_scheme_is_hidden(scheme: str, secret: str) -> None:
    for text in (
        f"{scheme} {secret}",
        f"sent {scheme}  {secret}, refused",
        f"b'{scheme} {secret}'",
    ):
        assert secret not in redact(text)


@given(
    secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=16).filter(
        lambda text: len(set(text)) > 4
    )
)
def test_known_secrets_are_hidden_anywhere(secret: str) -> None:
    for value in (
        secret,
        f"before{secret}after",
        {"a": [secret]},
        repr([secret]),
        json.dumps({"x": secret}),
        f"https://host/?q={quote(secret, safe='')}",
        ValueError(secret),
    ):
        left = Redactor([secret])(None, "info", {"event": "e", "value": value})["value"]
        for spelling in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
            assert spelling not in str(left)


def test_a_password_in_a_url_is_hidden() -> None:
    left = redact("cannot reach postgresql://scs:s3cr-et/p@db.example:5432/scs")
    assert "s3cr-et" not in left
    assert "db.example" in left
    assert "postgresql://scs:" in left


@pytest.mark.parametrize(
    "line",
    [
        "Rejecting request for session {}: credential does not match",
        "Created new transport with session ID: {}",
        "Created new session with ID: {}",
        "Could not find session for ID: {}",
        "Terminating session: {}",
        "Session {} crashed",
    ],
)
def test_the_id_of_an_mcp_session_is_hidden_however_the_sdk_names_it(line: str) -> None:
    session_id = "1b37a3309e8f427886c182343ff09276"
    assert redact(line.format(session_id)) == redact(line.format(REDACTED))


def test_what_is_no_credential_stays() -> None:
    event = {
        "event": "request",
        "path": "/mcp/tool/add_message",
        "session_id": "session_0123456789abcdef",
        "max_tokens": 2000,
        "credential_id": "0123456789abcdef",
        "key": "notes/today",
        "duration_ms": 1.25,
        "ok": True,
        "nothing": None,
        "api_key": None,
        "scs_writer_queue_depth": 3,
        "list": [1, "two"],
    }
    assert Redactor()(None, "info", dict(event)) == event


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_any_value_becomes_plain_json() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    for value in (
        Unprintable(),
        cyclic,
        {1: {2}},
        object(),
        b"\xff",
        float("nan"),
        1e999,
        "\ud800",
    ):
        event = Redactor()(None, "info", {"event": "e", "value": value})
        assert REDACTED not in json.dumps(event, allow_nan=False)
