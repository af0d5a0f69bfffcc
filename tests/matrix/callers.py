"""Every kind of caller: what it presents to a server, and what it may see."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jwt

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import IssuedToken
from shared_context_server.auth.tokens import ALGORITHM, AUDIENCE, ISSUER
from shared_context_server.models import Permission
from shared_context_server.server import Server
from tests.matrix.table import Kind
from tests.settings import ADMIN_API_KEY, API_KEY, JWT_SECRET_KEY
from tests.surfaces.conftest import headers_of

READ, WRITE = Permission.READ, Permission.WRITE

SECRET = JWT_SECRET_KEY * 2  # long enough for HS512 too

# What is hidden from some callers contains one of these words.
IN_SESSION, TO_DORA, FOR_PLANNERS, FOR_ADMINS, OF_ALICE = (
    "quartz-session",
    "quartz-dora",
    "quartz-planners",
    "quartz-admins",
    "quartz-alice",
)
WORDS = frozenset({IN_SESSION, TO_DORA, FOR_PLANNERS, FOR_ADMINS, OF_ALICE})
SEEN: dict[Kind, frozenset[str]] = {
    Kind.NOBODY: frozenset(),
    Kind.MISNAMED: frozenset(),
    Kind.OUTSIDER: frozenset(),
    Kind.READER: frozenset({IN_SESSION}),
    Kind.WRITER: frozenset(),
    Kind.MEMBER: frozenset({IN_SESSION}),
    Kind.CREATOR: WORDS - {FOR_ADMINS},
    Kind.ADMIN: WORDS - {OF_ALICE},
}


@dataclass(frozen=True)
class Somebody:
    """A caller: its headers, and the argument auth_token if it has one."""

    name: str
    kind: Kind
    headers: dict[str, str] = field(default_factory=dict)
    auth_token: str | None = None

    def with_token(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return (
            arguments if self.auth_token is None else {**arguments, "auth_token": self.auth_token}
        )

    @property
    def is_refused_by_headers(self) -> bool:
        """Whether no request of this caller passes. Without a credential some may."""
        is_wrong = self.kind in (Kind.NOBODY, Kind.MISNAMED)
        return is_wrong and bool(self.headers) and self.auth_token is None


async def make_callers(server: Server) -> AsyncIterator[Somebody]:
    """All of them, each with credentials of its own."""
    identity = server.services.identity
    outsider = headers_of("mallory", agent_type="planner")
    token = await _issue(server, "mallory")

    yield Somebody("anonymous", Kind.NOBODY)
    for name, credential in forge(token.token, SECRET).items():
        yield Somebody(f"{name} as bearer", Kind.NOBODY, {"Authorization": credential})
        if credential.startswith("Bearer "):
            yield Somebody(
                f"{name} beside a right key",
                Kind.NOBODY,
                outsider,
                credential.removeprefix("Bearer "),
            )
    yield Somebody("wrong key", Kind.NOBODY, headers_of("alice", api_key="wrong"))
    revoked = await _issue(server, "mallory")
    await identity.revoke(await identity.resolve(revoked.token, Connection()), None)
    yield Somebody("revoked token", Kind.NOBODY, _bearer(revoked.token))
    yield Somebody("revoked token as argument", Kind.NOBODY, outsider, revoked.token)
    record, key = await identity.keys.create("mallory", [READ, WRITE])
    of_revoked_key = await _issue(server, "mallory", key)
    await identity.keys.revoke(record.id)
    yield Somebody("revoked key", Kind.NOBODY, headers_of("mallory", api_key=key))
    yield Somebody("token of a revoked key", Kind.NOBODY, _bearer(of_revoked_key.token))

    expired, of_expired = await identity.keys.create("mallory", [READ, WRITE])
    await identity.keys.rotate(expired.id, overlap=timedelta())
    yield Somebody("expired key", Kind.NOBODY, headers_of("mallory", api_key=of_expired))

    # A leaked handle, and credentials that disagree
    handle = (await _issue(server, "alice")).agent_handle
    assert handle is not None
    yield Somebody("leaked handle as bearer", Kind.NOBODY, _bearer(handle))
    yield Somebody("leaked handle alone", Kind.MISNAMED, {}, handle)
    _, bound = await identity.keys.create("mallory", [READ, WRITE])
    bound_headers = headers_of("mallory", api_key=bound)
    yield Somebody("leaked handle with another key", Kind.MISNAMED, bound_headers, handle)
    yield Somebody("leaked handle with the admin's key", Kind.MISNAMED, _admin(), handle)
    yield Somebody(
        "another's name with a bound key", Kind.MISNAMED, headers_of("alice", api_key=bound)
    )
    _, of_team = await identity.keys.create("mal*", [READ, WRITE])
    of_another = headers_of("alice", api_key=of_team)
    yield Somebody("another's name with a key for a pattern", Kind.MISNAMED, of_another)
    matching = headers_of("mallory", api_key=of_team)
    yield Somebody("not invited, by a key for a pattern", Kind.OUTSIDER, matching)
    disagreeing = _bearer(token.token) | headers_of("alice")
    yield Somebody("own token beside a key and another's name", Kind.OUTSIDER, disagreeing)
    own = (await _issue(server, "mallory")).agent_handle
    yield Somebody("own handle beside another's name", Kind.OUTSIDER, headers_of("alice"), own)

    # Those with a credential
    yield Somebody("not invited", Kind.OUTSIDER, outsider)
    yield Somebody("not invited, by token", Kind.OUTSIDER, _bearer(token.token))
    yield Somebody(
        "another of the creator's type", Kind.MEMBER, headers_of("bob", agent_type="coder")
    )
    for kind, name, permission in (
        (Kind.READER, "reader", READ),
        (Kind.WRITER, "writer", WRITE),
    ):
        _, limited = await identity.keys.create(name, [permission], agent_type="coder")
        yield Somebody(name, kind, headers_of(name, api_key=limited))
    narrow = await _issue(server, "reader", requested=[READ])
    yield Somebody("token that asked to read only", Kind.READER, _bearer(narrow.token))
    yield Somebody("creator", Kind.CREATOR, headers_of("alice", agent_type="planner"))
    yield Somebody("admin", Kind.ADMIN, _admin())


def forge(token: str, secret: str) -> dict[str, str]:
    """Values of Authorization that no server may accept, made of a valid token."""
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["aud"], claims["iss"]) == (AUDIENCE, ISSUER)

    def sign(algorithm: str = ALGORITHM, key: str = secret, **changed: Any) -> str:
        made = {name: value for name, value in (claims | changed).items() if value is not None}
        return f"Bearer {jwt.encode(made, key, algorithm)}"

    head, body, signature = token.split(".")
    return {
        "garbage": "Bearer a.b.c",
        "expired token": sign(exp=int(time.time()) - 1),
        "token without expiry": sign(exp=None),
        "wrong audience": sign(aud="another-service"),
        "no audience": sign(aud=None),
        "wrong issuer": sign(iss="another-issuer"),
        "alg none": f"Bearer {jwt.encode(claims, None, 'none')}",
        "another algorithm": sign(algorithm="HS512"),
        "another secret": sign(key="x" * 64),
        "another body": f"Bearer {head}.{body[:-2]}AA.{signature}",
        "a key that does not exist": _of_key(claims, secret),
        "another scheme": "Basic bWFsbG9yeTp4",
    }


def _of_key(claims: dict[str, Any], secret: str) -> str:
    made = claims | {"key": "key_0000000000000000"}
    return f"Bearer {jwt.encode(made, secret, ALGORITHM)}"


async def _issue(
    server: Server,
    agent_id: str,
    key: str = API_KEY,
    requested: list[Permission] | None = None,
) -> IssuedToken:
    identity = server.services.identity
    connection = await identity.authenticate_headers(
        authorization=None, api_key=key, agent_id=None, agent_type=None
    )
    return await identity.authenticate(
        connection=connection,
        agent_id=agent_id,
        agent_type="coder",
        api_key=key,
        requested_permissions=requested or [READ, WRITE],
    )


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _admin() -> dict[str, str]:
    return headers_of("root", api_key=ADMIN_API_KEY)
