"""Which keys are good and which tokens are revoked, as the store says at most half a second ago."""

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

MAX_AGE_S = 0.5  # a revocation must count in every process within a second


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """One state of the store beside the configured keys; `grants` is by key id."""

    generation: int
    grants: dict[str, KeyGrant]
    configured: tuple[ConfiguredKey, ...]
    created_by_hash: dict[str, KeyGrant]
    revoked_families: frozenset[str]

    def find_grant(self, key: str) -> KeyGrant | None:
        """What the presented API key allows; None if it is none of ours.

        Constant-time in the key: hashes are compared, the configured ones all and whole. A created
        key is found by its hash, of which a caller cannot choose a part without trying keys.
        """
        presented = hash_key(key)
        found = self.created_by_hash.get(presented)
        for candidate in self.configured:
            # A created key that somebody has put into SCS_API_KEY, as clients do, stays what it is.
            if hmac.compare_digest(presented, candidate.secret_hash) and found is None:
                found = candidate.grant
        return found


class KeyStates:
    """Keeps the latest KnownKeys, refreshed from the store on use.

    Safe for any number of tasks of one loop: while one asks the store the others wait for its
    answer, and a cancelled one is succeeded by the next. Raises Unavailable as the store does:
    what fails for the one fails for all who wait, so that a store that hangs holds nobody up for
    longer than it did the one.
    """

    def __init__(
        self, store: Store, configured: Sequence[ConfiguredKey], always: Sequence[KeyGrant]
    ) -> None:
        self._store = store
        self._configured = tuple(configured)
        self._always = {grant.key_id: grant for grant in always}
        self._always |= {key.grant.key_id: key.grant for key in configured}
        self._lock = anyio.Lock()
        self._known: KnownKeys | None = None
        self._asked_at = 0.0
        self._failures = 0

    def find_recent(self) -> KnownKeys | None:
        """The state if it is recent enough to be relied on."""
        return self._known if time.monotonic() - self._asked_at < MAX_AGE_S else None

    async def get(self, *, max_age_s: float = MAX_AGE_S) -> KnownKeys:
        """A state that is no older than that; 0: the store is asked after this call began."""
        asked_since = time.monotonic() - max_age_s
        failures = self._failures
        async with self._lock:
            if self._failures > failures:
                raise Unavailable
            if self._known is not None and self._asked_at >= asked_since:
                return self._known
            try:
                return await self._load()
            except SharedContextError:
                self._failures += 1
                raise

    async def _load(self) -> KnownKeys:
        asked_at = time.monotonic()
        known = self._known
        state = await self._store.credentials.get_auth_state(
            None if known is None else known.generation
        )
        if state is not None:
            known = self._index(state)
        if known is None:
            raise RuntimeError("the store reported no change from nothing")
        self._known, self._asked_at = known, asked_at
        return known

    def _index(self, state: AuthState) -> KnownKeys:
        created = {key.secret_hash: grant_of(key) for key in state.keys.values()}
        return KnownKeys(
            generation=state.generation,
            grants={grant.key_id: grant for grant in created.values()} | self._always,
            configured=self._configured,
            created_by_hash=created,
            revoked_families=state.revoked_families,
        )
