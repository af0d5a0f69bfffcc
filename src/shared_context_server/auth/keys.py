"""API keys: how they are made, kept, recognised and called by an id that gives nothing away."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from pydantic import SecretStr

from shared_context_server import policy
from shared_context_server.auth.connection import KeyGrant
from shared_context_server.models import ApiKey, Permission
from shared_context_server.settings import Settings

KEY_PREFIX = "scs_"
KEY_ID_PREFIX = "key_"
KEY_ID_HEX_CHARS = 16

ALL_PERMISSIONS = frozenset(Permission)
READ_WRITE = frozenset({Permission.READ, Permission.WRITE})

AUTH_DISABLED = KeyGrant(
    "auth-disabled", None, policy.permissions_without_authentication(None), "anonymous-agent"
)
"""Stands in for a key under AUTH_ENABLED=false: everyone holds it."""


def everyones_grant(grant: KeyGrant | None) -> KeyGrant:
    """What holds under AUTH_ENABLED=false for who presents this key, or none or a wrong one, which
    is the same: everyone is who they say. What a key adds stays its own, and ends with it."""
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
    """The SHA-256 of a key, hex. A fast hash is enough to keep a created key by: 256 random bits
    cannot be guessed however cheap a guess is, and a slow one would cost every request."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def make_key_id() -> str:
    """The id of a key to be created."""
    return KEY_ID_PREFIX + secrets.token_hex(KEY_ID_HEX_CHARS // 2)


def derive_key_id(key: str, secret: bytes) -> str:
    """The id of a configured key: the same in every process, another one for another key, so that
    changing API_KEY ends the tokens of the old one. It is a MAC under the token secret, since
    tokens carry it and a plain hash would let their holders try guesses at a weak key."""
    mac = hmac.new(secret, b"shared-context-server key id\0" + key.encode(), hashlib.sha256)
    return KEY_ID_PREFIX + mac.hexdigest()[:KEY_ID_HEX_CHARS]


def grant_of(key: ApiKey) -> KeyGrant:
    """What a created key allows."""
    return KeyGrant(key.id, key.agent_id, key.permissions, key.agent_id, key.agent_type)


@dataclass(frozen=True, slots=True)
class ConfiguredKey:
    """API_KEY or ADMIN_API_KEY: its hash and what it allows."""

    secret_hash: str
    grant: KeyGrant


def configured_keys(settings: Settings, secret: bytes) -> tuple[ConfiguredKey, ...]:
    """The keys that the settings hold."""
    holders = (
        (settings.api_key, READ_WRITE, "api-key"),
        (settings.admin_api_key, ALL_PERMISSIONS, "admin-api-key"),
    )
    return tuple(
        _configure(value, permissions, name, secret)
        for value, permissions, name in holders
        if value is not None
    )


def _configure(
    value: SecretStr, permissions: frozenset[Permission], name: str, secret: bytes
) -> ConfiguredKey:
    key = value.get_secret_value().strip()  # as a header's value arrives
    return ConfiguredKey(
        hash_key(key), KeyGrant(derive_key_id(key, secret), None, permissions, name)
    )
