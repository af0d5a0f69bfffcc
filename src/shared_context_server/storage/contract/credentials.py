"""API keys and issued credentials."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared_context_server.models import (
    ApiKey,
    AuditEntry,
    Credential,
)


@dataclass(frozen=True, slots=True)
class AuthState:
    """What is needed to accept or refuse credentials: active keys by id, and the family ids of
    revoked credentials that have not expired yet. `generation` grows with every change."""

    generation: int
    keys: dict[str, ApiKey]
    revoked_families: frozenset[str]


class Credentials(Protocol):
    """API keys, and the tokens and handles that were issued for them."""

    async def get_auth_state(self, known_generation: int | None) -> AuthState | None:
        """None if the generation still is `known_generation`, at the cost of one row."""

    async def add_key(self, key: ApiKey, audit: AuditEntry) -> None:
        """Store an active key."""

    async def list_keys(self) -> list[ApiKey]:
        """All keys, revoked ones too, by creation."""

    async def revoke_key(self, key_id: str, at: datetime, audit: AuditEntry) -> bool:
        """Revoke; False if there is no such active key."""

    async def add(self, credential: Credential, audit: AuditEntry) -> None:
        """Record an issued token with its handle. Raises Unauthenticated if its family has been
        revoked."""

    async def find(self, credential_id: str) -> Credential | None:
        """By jti, revoked and expired ones too until they are purged; of a jti that is not there
        (any more), the longest-lived credential that was refreshed from it."""

    async def find_by_handle(self, handle_hash: str) -> Credential | None:
        """By the hash of the agent handle."""

    async def revoke_family(self, family_id: str, at: datetime, audit: AuditEntry) -> bool:
        """Revoke all tokens of the family and their handles; False if none of them is active."""
