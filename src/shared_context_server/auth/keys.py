"""API keys: generates and hashes them, and derives their ids and grants."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from shared_context_server import policy
from shared_context_server.auth.connection import KeyGrant
from shared_context_server.models import ApiKey, Permission
from shared_context_server.settings import IdentityMode, Settings

KEY_PREFIX = "scs_"
KEY_ID_PREFIX = "key_"
KEY_ID_HEX_CHARS = 16

ALL_PERMISSIONS = frozenset(Permission)
OPERATOR = "operator"  # the agent that ADMIN_API_KEY is under IDENTITY=bound, and the command line
READ_WRITE = frozenset({Permission.READ, Permission.WRITE})

AUTH_DISABLED = KeyGrant(
    "auth-disabled", None, policy.permissions_without_authentication(None), "anonymous-agent"
)
"""The grant of every caller under AUTH_ENABLED=false."""


def grant_without_authentication(grant: KeyGrant | None) -> KeyGrant:
    """The grant under AUTH_ENABLED=false of a caller with this key. None: no key, or an invalid one.
    A key can only add permissions, which end when it is revoked."""
    allowed = policy.permissions_without_authentication(
        None if grant is None else grant.permissions
    )
    if grant is None or allowed == AUTH_DISABLED.permissions:
        return AUTH_DISABLED
    return KeyGrant(grant.key_id, None, allowed, AUTH_DISABLED.default_agent_id)


def generate_key() -> str:
    """A new API key: 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """The SHA-256 of a key in hex. A fast hash is enough: 256 random bits cannot be guessed, and a
    slow hash would cost time at every request."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def make_key_id() -> str:
    """A new key id."""
    return KEY_ID_PREFIX + secrets.token_hex(KEY_ID_HEX_CHARS // 2)


def derive_key_id(key: str, secret: bytes) -> str:
    """The id of a configured key. It is the same in every process. Another key has another id, so
    changing API_KEY invalidates the tokens of the old key. Tokens contain the id: it is a MAC under
    the token secret, because a simple hash would let holders of tokens test guesses of a weak key."""
    mac = hmac.new(secret, b"shared-context-server key id\0" + key.encode(), hashlib.sha256)
    return KEY_ID_PREFIX + mac.hexdigest()[:KEY_ID_HEX_CHARS]


def grant_of(key: ApiKey) -> KeyGrant:
    """The grant of a created key."""
    return KeyGrant(
        key.id,
        None if key.is_pattern else key.agent_id,
        key.permissions,
        key.agent_id,
        key.agent_type,
        key.agent_id if key.is_pattern else None,
        key.expires_at,
    )


@dataclass(frozen=True, slots=True)
class ConfiguredKey:
    """The hash and the grant of API_KEY or ADMIN_API_KEY.

    `is_local`: IDENTITY=bound. Nobody may present the key, but processes that can read it, on the
    server's machine, still act by its grant. `earlier_ids`: the ids that the key has in tokens signed
    with a previous secret.
    """

    secret_hash: str
    grant: KeyGrant
    is_local: bool = False
    earlier_ids: tuple[str, ...] = ()


def configured_keys(
    settings: Settings, secret: bytes, previous: Sequence[bytes] = ()
) -> tuple[ConfiguredKey, ...]:
    """The keys of the settings.

    Under IDENTITY=bound nobody may present API_KEY, which names no agent, and ADMIN_API_KEY names
    the agent OPERATOR.
    """
    is_bound = settings.identity is IdentityMode.BOUND
    holders = (
        (settings.api_key, READ_WRITE, "api-key"),
        (settings.admin_api_key, ALL_PERMISSIONS, "admin-api-key"),
    )
    return tuple(
        _configure(value, permissions, name, [secret, *previous], is_bound=is_bound)
        for value, permissions, name in holders
        if value is not None
    )


def _configure(
    value: SecretStr,
    permissions: frozenset[Permission],
    name: str,
    secrets_: Sequence[bytes],
    *,
    is_bound: bool,
) -> ConfiguredKey:
    key = value.get_secret_value().strip()  # header values are trimmed too
    # Under IDENTITY=bound the ids differ, so that tokens issued before, to whoever, end.
    purpose = "bound " if is_bound else ""
    key_id, *earlier = [derive_key_id(purpose + key, secret) for secret in secrets_]
    agent_id = OPERATOR if is_bound and Permission.ADMIN in permissions else None
    grant = KeyGrant(key_id, agent_id, permissions, agent_id or name)
    is_local = is_bound and agent_id is None
    return ConfiguredKey(hash_key(key), grant, is_local, tuple(earlier))
