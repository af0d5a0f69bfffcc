"""Creates and reads tokens (JWT, RFC 7519, HS256) and creates agent handles.

PyJWT brings cryptography, which takes a quarter of a second to import. So it is imported when the first
token is made or read; a server imports it at its start.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shared_context_server.errors import ConfigurationError, Unauthenticated
from shared_context_server.models import Permission
from shared_context_server.settings import MIN_JWT_SECRET_BYTES
from shared_context_server.steady_time import utc_now

ALGORITHM = "HS256"
ISSUER = "shared-context-server"
AUDIENCE = "shared-context"
REQUIRED_CLAIMS = ["iss", "aud", "sub", "exp", "iat", "jti"]
MAX_TOKEN_CHARS = 8192  # enough for the longest agent names, escaped and in base64

HANDLE_PREFIX = "agt_"
_HANDLE_BYTES = 16  # 22 url-safe characters


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """The content of a token. `credential_id` is the claim jti. `issued_at` and `expires_at` are
    seconds since the epoch. `origin_id`: the first token of the login, if this one was refreshed."""

    credential_id: str
    agent_id: str
    agent_type: str
    permissions: frozenset[Permission]
    key_id: str
    issued_at: int
    expires_at: int
    origin_id: str | None = None


class TokenSigner:
    """Signs tokens with one secret, and reads those of this and of previous secrets."""

    def __init__(self, secret: bytes, previous: Sequence[bytes] = ()) -> None:
        if len(secret) < MIN_JWT_SECRET_BYTES:
            raise ConfigurationError(
                f"JWT_SECRET_KEY: must be at least {MIN_JWT_SECRET_BYTES} bytes."
            )
        self._secret = secret
        self._accepted = (secret, *previous)

    def encode(self, claims: TokenClaims) -> str:
        import jwt  # noqa: PLC0415 - see the module

        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": claims.agent_id,
            "agent_type": claims.agent_type,
            "permissions": [p.value for p in Permission if p in claims.permissions],
            "key": claims.key_id,
            "jti": claims.credential_id,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
        }
        if claims.origin_id is not None:
            payload["origin"] = claims.origin_id
        return jwt.encode(payload, self._secret, algorithm=ALGORITHM)

    def decode(self, token: str, *, field: str) -> TokenClaims:
        """Read a token. Raises Unauthenticated, naming `field`, if it has expired or is not valid."""
        import jwt  # noqa: PLC0415 - see the module

        claims = None
        problem = "is not valid"
        # Errors are raised outside the except clauses. Otherwise PyJWT's error would be their
        # context, and its traceback contains the token.
        if len(token) <= MAX_TOKEN_CHARS:
            try:
                claims = self._read(token)
            except jwt.ExpiredSignatureError:
                problem = "has expired"
            except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError):
                pass
        if claims is None:
            raise Unauthenticated(f"The token {problem}.", field=field)
        return claims

    def _read(self, token: str) -> TokenClaims:
        import jwt  # noqa: PLC0415 - see the module

        for secret in self._accepted[:-1]:
            with suppress(jwt.InvalidSignatureError):
                return _read(token, secret)
        return _read(token, self._accepted[-1])


def _read(token: str, secret: bytes) -> TokenClaims:
    import jwt  # noqa: PLC0415 - see the module

    payload: dict[str, Any] = jwt.decode(
        token,
        secret,
        algorithms=[ALGORITHM],
        audience=AUDIENCE,
        issuer=ISSUER,
        # A replica whose clock is slightly ahead issues tokens "from the future": no error.
        # The expiry is checked below, with the time that never goes back.
        options={"require": REQUIRED_CLAIMS, "verify_iat": False, "verify_exp": False},
    )
    if int(payload["exp"]) <= utc_now().timestamp():
        raise jwt.ExpiredSignatureError
    return TokenClaims(
        credential_id=_text(payload["jti"]),
        agent_id=_text(payload["sub"]),
        agent_type=_text(payload["agent_type"]),
        permissions=frozenset(Permission(name) for name in payload["permissions"]),
        key_id=_text(payload["key"]),
        issued_at=int(payload["iat"]),
        expires_at=int(payload["exp"]),
        origin_id=_text(payload["origin"]) if "origin" in payload else None,
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a claim is not text")
    value.encode()  # raises ValueError for a lone surrogate, which stores do not accept
    return value


def make_credential_id() -> str:
    """A new credential id, the jti of its token: 128 random bits."""
    return secrets.token_hex(16)


def make_handle() -> str:
    """A new agent handle. It is short, because sub-agents pass it on."""
    return HANDLE_PREFIX + secrets.token_urlsafe(_HANDLE_BYTES)


def hash_handle(handle: str) -> str:
    """The SHA-256 of a handle in hex; only this is stored. 128 random bits need no slow hash."""
    return hashlib.sha256(handle.encode(errors="surrogatepass")).hexdigest()
