"""Tokens: what is signed comes back, whatever else is refused without being shown."""

from __future__ import annotations

import base64
import json
import time
import traceback
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.auth.tokens import (
    MAX_TOKEN_CHARS,
    TokenClaims,
    TokenSigner,
    hash_handle,
    make_handle,
)
from shared_context_server.errors import ConfigurationError, Unauthenticated
from shared_context_server.models import MAX_AGENT_ID_CHARS, Permission
from tests.auth.conftest import READ, WRITE
from tests.settings import JWT_SECRET_KEY

SIGNER = TokenSigner(JWT_SECRET_KEY.encode())
NOW = int(time.time())
CLAIMS = TokenClaims(
    "jti-1", "worker-7", "claude", frozenset({READ, WRITE}), "key_1", NOW, NOW + 86_400
)


def payload(**changes: Any) -> dict[str, Any]:
    """The payload of a valid token, changed; None removes a claim."""
    valid: dict[str, Any] = jwt.decode(SIGNER.encode(CLAIMS), options={"verify_signature": False})
    return {name: value for name, value in (valid | changes).items() if value is not None}


def signed(secret: str = JWT_SECRET_KEY, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(payload(**changes), secret, algorithm=algorithm)


def refusal(token: str) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as raised:
        SIGNER.decode(token, field="auth_token")
    return raised.value


@given(
    agent_id=st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=128),
    permissions=st.frozensets(st.sampled_from(Permission)),
)
def test_a_token_says_what_was_signed(agent_id: str, permissions: frozenset[Permission]) -> None:
    claims = TokenClaims("jti-2", agent_id, "generic", permissions, "key_1", NOW, NOW + 86_400)
    assert SIGNER.decode(SIGNER.encode(claims), field="auth_token") == claims


def test_the_longest_names_fit_into_a_token() -> None:
    longest = "\U0001f980" * MAX_AGENT_ID_CHARS
    claims = TokenClaims(
        "j" * 32, longest, longest, frozenset(Permission), "key_1", NOW, NOW + 86_400
    )
    assert SIGNER.decode(SIGNER.encode(claims), field="auth_token") == claims


def test_an_expired_token_is_told_apart() -> None:
    assert refusal(signed(exp=NOW - 1)).message == "The token has expired."


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "exp", "iat", "jti", "key", "permissions"])
def test_a_token_without_a_required_claim_is_refused(claim: str) -> None:
    assert refusal(signed(**dict[str, Any]([(claim, None)]))).message == "The token is not valid."


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody-else"},
        {"aud": "something-else"},
        {"sub": ""},
        {"sub": 7},
        {"sub": "\ud800"},
        {"exp": float("inf")},
        {"iat": float("-inf")},
        {"agent_type": ["claude"]},
        {"permissions": ["read", "root"]},
        {"permissions": 3},
        {"key": {}},
        {"exp": "never"},
        {"iat": "long ago"},
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(changes: dict[str, Any]) -> None:
    assert refusal(signed(**changes)).message == "The token is not valid."


def test_a_token_of_another_secret_is_refused() -> None:
    refusal(signed(secret="another-secret-of-sufficient-length-00000"))


def test_only_the_pinned_algorithm_is_accepted() -> None:
    refusal(signed(algorithm="HS512", secret=JWT_SECRET_KEY + "x" * 64))
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).decode().rstrip("=")
    _, body, _ = SIGNER.encode(CLAIMS).split(".")
    refusal(f"{head}.{body}.")


def test_a_token_from_a_clock_that_is_ahead_is_accepted() -> None:
    assert SIGNER.decode(signed(iat=NOW + 5), field="auth_token").credential_id == "jti-1"


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_other_text_is_refused(text: str) -> None:
    refusal(text)
    refusal(f"{text}.{text}.{text}")


def test_an_endless_token_is_refused_unread() -> None:
    refusal("a." * MAX_TOKEN_CHARS)


def test_a_refusal_names_the_field_and_holds_nothing_of_the_token() -> None:
    token = signed(secret="another-secret-of-sufficient-length-00000")
    error = refusal(token)
    assert error.details == {"field": "auth_token"}
    assert error.__cause__ is None
    assert error.__context__ is None
    assert token not in repr(error) + str(error.args) + "".join(traceback.format_exception(error))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        TokenSigner(b"x" * 31)


def test_handles_are_short_and_kept_as_hashes() -> None:
    handle = make_handle()
    assert handle.startswith("agt_")
    assert len(handle) == len("agt_") + 22
    assert handle not in hash_handle(handle)
    assert hash_handle(handle) != hash_handle(make_handle())
