"""Caches the valid keys and the revoked tokens, for at most half a second."""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from shared_context_server.auth.connection import KeyGrant
from shared_context_server.auth.keys import ConfiguredKey, grant_of, hash_key
from shared_context_server.errors import SharedContextError, Unavailable
from shared_context_server.storage.contract import AuthState, Store

MAX_AGE_S = 0.5  # every process must apply a revocation within a second


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """The configured keys and the keys in the store at one time. `grants` is by key id."""

    generation: int
    grants: dict[str, KeyGrant]
    configured: tuple[ConfiguredKey, ...]
    created_by_hash: dict[str, KeyGrant]
    revoked_families: frozenset[str]

    def find_grant(self, key: str) -> KeyGrant | None:
        """The grant of an API key; None if the key is unknown.

        The time does not depend on the key: a created key is looked up by its hash, and the hashes
        of all configured keys are compared in constant time.
        """
        presented = hash_key(key)
        found = self.created_by_hash.get(presented)
        for candidate in self.configured:
            # A created key may also be configured as SCS_API_KEY, as clients do. It stays bound.
            if hmac.compare_digest(presented, candidate.secret_hash) and found is None:
                found = candidate.grant
        return found


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
        self._always |= {key.grant.key_id: key.grant for key in configured}
        self._lock = anyio.Lock()
        self._snapshot: KeySnapshot | None = None
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
        if state is not None:
            snapshot = self._index(state)
        if snapshot is None:
            raise RuntimeError("the store returned no keys at the first load")
        self._snapshot, self._asked_at = snapshot, asked_at
        return snapshot

    def _index(self, state: AuthState) -> KeySnapshot:
        created = {key.secret_hash: grant_of(key) for key in state.keys.values()}
        return KeySnapshot(
            generation=state.generation,
            grants={grant.key_id: grant for grant in created.values()} | self._always,
            configured=self._configured,
            created_by_hash=created,
            revoked_families=state.revoked_families,
        )
