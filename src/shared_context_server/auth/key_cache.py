"""Caches the valid keys and the revoked tokens, for at most half a second."""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import anyio

from shared_context_server.auth.connection import KeyGrant
from shared_context_server.auth.keys import ConfiguredKey, grant_of, hash_key
from shared_context_server.errors import (
    PermissionDenied,
    SharedContextError,
    Unauthenticated,
    Unavailable,
)
from shared_context_server.models import ApiKey
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import AuthState, Store

MAX_AGE_S = 0.5  # every process must apply a revocation within a second


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """The configured keys and the keys in the store at one time. `grants` is by key id, also by ids
    of a configured key under previous secrets. `expired`: keys that have expired, by hash.
    `changes_at`: when the next one will."""

    generation: int
    grants: dict[str, KeyGrant]
    configured: tuple[ConfiguredKey, ...]
    created_by_hash: dict[str, KeyGrant]
    revoked_families: frozenset[str]
    expired: dict[str, ApiKey] = field(default_factory=dict)
    changes_at: datetime | None = None

    def is_outdated(self, now: datetime) -> bool:
        """Whether a key has expired since."""
        return self.changes_at is not None and self.changes_at <= now

    def has_expired(self, key_id: str) -> bool:
        """Whether this key has expired."""
        return any(key.id == key_id for key in self.expired.values())

    def find_grant(self, key: str) -> KeyGrant | None:
        """The grant of an API key; None if the key is unknown.

        The time does not depend on the key: a created key is looked up by its hash, and the hashes
        of all configured keys are compared in constant time.
        """
        presented = hash_key(key)
        found = self.created_by_hash.get(presented)
        for candidate in self.configured:
            # A created key may also be configured as SCS_API_KEY, as clients do. It stays bound.
            is_same = hmac.compare_digest(presented, candidate.secret_hash)
            if is_same and found is None and not candidate.is_local:
                found = candidate.grant
        return found

    def refuse_key(self, key: str, *, field: str, suggestion: str) -> SharedContextError:
        """The error for an API key without a grant, which names `field`."""
        presented = hash_key(key)
        expired = self.expired.get(presented)
        if expired is not None:
            successor = expired.replaced_by
            why = "" if successor is None else f" The key {successor} has replaced it."
            return Unauthenticated(
                f"The API key has expired.{why}",
                field=field,
                suggestion="Ask the operator of the server for a new key.",
            )
        if any(
            candidate.is_local and hmac.compare_digest(presented, candidate.secret_hash)
            for candidate in self.configured
        ):
            return PermissionDenied(
                "This server does not accept the shared API_KEY, which names no agent.",
                field=field,
                suggestion="Use a key of your own; the operator makes it with: "
                "scs keys create --agent-id NAME.",
            )
        return Unauthenticated("The API key is not valid.", field=field, suggestion=suggestion)


class KeyCache:
    """Keeps the latest KeySnapshot and reloads it from the store when it is used.

    Any number of tasks of one loop can share it. One task loads, the others wait for its result; if
    it is cancelled, the next one loads. If the store fails, all that wait get Unavailable: a store
    that hangs delays each caller only once.
    """

    def __init__(
        self, store: Store, configured: Sequence[ConfiguredKey], always: Sequence[KeyGrant]
    ) -> None:
        self._store = store
        self._configured = tuple(configured)
        self._always = {grant.key_id: grant for grant in always}
        for key in configured:
            self._always |= dict.fromkeys((key.grant.key_id, *key.earlier_ids), key.grant)
        self._lock = anyio.Lock()
        self._snapshot: KeySnapshot | None = None
        self._state: AuthState | None = None
        self._asked_at = 0.0
        self._failures = 0

    def find_recent(self) -> KeySnapshot | None:
        """The cached snapshot; None if it is too old."""
        return self._snapshot if time.monotonic() - self._asked_at < MAX_AGE_S else None

    async def get(self, *, max_age_s: float = MAX_AGE_S) -> KeySnapshot:
        """A snapshot of at most this age. With 0 it is loaded after the start of this call."""
        asked_since = time.monotonic() - max_age_s
        failures = self._failures
        async with self._lock:
            if self._failures > failures:
                raise Unavailable
            if self._snapshot is not None and self._asked_at >= asked_since:
                return self._snapshot
            try:
                return await self._load()
            except SharedContextError:
                self._failures += 1
                raise

    async def _load(self) -> KeySnapshot:
        asked_at = time.monotonic()
        snapshot = self._snapshot
        state = await self._store.credentials.get_auth_state(
            None if snapshot is None else snapshot.generation
        )
        now = utc_now()
        if state is not None:
            self._state = state
            snapshot = self._index(state, now)
        elif self._state is not None and snapshot is not None and snapshot.is_outdated(now):
            snapshot = self._index(self._state, now)
        if snapshot is None:
            raise RuntimeError("the store returned no keys at the first load")
        self._snapshot, self._asked_at = snapshot, asked_at
        return snapshot

    def _index(self, state: AuthState, now: datetime) -> KeySnapshot:
        expiries = {key.id: key.expires_at for key in state.keys.values() if key.expires_at}
        ended = {key_id for key_id, expires_at in expiries.items() if expires_at <= now}
        created = {
            key.secret_hash: grant_of(key) for key in state.keys.values() if key.id not in ended
        }
        return KeySnapshot(
            generation=state.generation,
            grants={grant.key_id: grant for grant in created.values()} | self._always,
            configured=self._configured,
            created_by_hash=created,
            revoked_families=state.revoked_families,
            expired={state.keys[key_id].secret_hash: state.keys[key_id] for key_id in ended},
            changes_at=min((at for at in expiries.values() if at > now), default=None),
        )
