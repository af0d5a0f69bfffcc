"""The port for API keys and issued credentials."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from shared_context_server.models import (
    ApiKey,
    AuditEntry,
    Credential,
)

KEY_USE_ACCURACY = timedelta(minutes=1)  # so a key costs at most one write in this time


@dataclass(frozen=True, slots=True)
class AuthState:
    """What is needed to check credentials: the keys that were not revoked by id, expired ones too, and
    the family ids of revoked credentials that have not expired. `generation` grows with every
    change, but not when a key expires."""

    generation: int
    keys: dict[str, ApiKey]
    revoked_families: frozenset[str]


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What a key is used for: its tokens that are valid (each with its agent handle), the agents that
    have them, and when the newest was issued."""

    tokens: int
    agents: int
    last_issued_at: datetime | None


class Credentials(Protocol):
    """API keys, and the tokens and handles issued for them."""

    async def get_auth_state(self, known_generation: int | None) -> AuthState | None:
        """Return the state; None if its generation is still `known_generation`, at the cost of one
        row."""

    async def add_key(self, key: ApiKey, audit: AuditEntry) -> None:
        """Store an active key."""

    async def list_keys(self) -> list[ApiKey]:
        """Return all keys by creation, with the revoked ones."""

    async def revoke_key(self, key_id: str, at: datetime, audit: AuditEntry) -> bool:
        """Revoke a key; return False if there is no such active key."""

    async def replace_key(
        self, key_id: str, successor: ApiKey, ends_at: datetime, audit: AuditEntry
    ) -> bool:
        """Store the successor of a key, which then expires at `ends_at` at the latest. Return False,
        and store nothing, if there is no such key that is neither revoked nor replaced."""

    async def note_key_use(self, key_ids: Collection[str], at: datetime) -> None:
        """Set when the keys were last used, unless that is less than KEY_USE_ACCURACY before `at`.
        Unknown ids have no effect."""

    async def measure_keys(self, *, now: datetime) -> dict[str, KeyUse]:
        """Return the use of each key that has valid tokens, by key id. May read all tokens."""

    async def add(self, credential: Credential, audit: AuditEntry) -> None:
        """Store an issued token with its handle. Raises Unauthenticated if its family was revoked."""

    async def find(self, credential_id: str) -> Credential | None:
        """Return a credential by jti, also a revoked or expired one until it is purged. If the jti
        is not there, return the longest-lived credential refreshed from it."""

    async def find_by_handle(self, handle_hash: str) -> Credential | None:
        """Return a credential by the hash of its agent handle."""

    async def revoke_family(self, family_id: str, at: datetime, audit: AuditEntry) -> bool:
        """Revoke all tokens and handles of the family; return False if none of them is active."""
