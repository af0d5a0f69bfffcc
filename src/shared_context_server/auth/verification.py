"""Verifies tokens and agent handles, and returns their callers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cachetools import LRUCache

from shared_context_server.auth.key_cache import KeySnapshot
from shared_context_server.auth.tokens import TokenSigner, hash_handle
from shared_context_server.errors import Unauthenticated
from shared_context_server.models import Caller
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import Store

MAX_REMEMBERED = 10_000  # tokens, and handles: about 1 KiB each


@dataclass(frozen=True, slots=True)
class Verified:
    """A genuine credential with its caller and its expiry. It can be cached without a time limit,
    because `require_valid` checks at every use whether it is still valid."""

    caller: Caller
    expires_at_s: float
    what: str


def require_valid(verified: Verified, snapshot: KeySnapshot, field: str) -> Caller:
    """The caller, with no more permissions than the key has now. Raises Unauthenticated if the
    credential has expired, or if it or its key was revoked."""
    caller = verified.caller
    if verified.expires_at_s <= utc_now().timestamp():
        raise Unauthenticated(f"The {verified.what} has expired.", field=field)
    grant = snapshot.grants.get(caller.key_id)
    if grant is None and snapshot.has_expired(caller.key_id):
        raise Unauthenticated(f"The API key of the {verified.what} has expired.", field=field)
    if grant is None or caller.family_id in snapshot.revoked_families:
        raise Unauthenticated(f"The {verified.what} is not valid any more.", field=field)
    if caller.permissions <= grant.permissions and caller.key_id == grant.key_id:
        return caller
    # The key had another id when a previous secret signed tokens.
    permissions = caller.permissions & grant.permissions
    return replace(caller, permissions=permissions, key_id=grant.key_id)


class Verifier:
    """Reads tokens and handles, and caches the genuine ones."""

    def __init__(self, store: Store, signer: TokenSigner) -> None:
        self._store = store
        self._signer = signer
        self._tokens: LRUCache[str, Verified] = LRUCache(MAX_REMEMBERED)
        self._handles: LRUCache[str, Verified] = LRUCache(MAX_REMEMBERED)

    def read_token(self, token: str, *, field: str) -> Verified:
        """Raises Unauthenticated, naming `field`, unless this server signed the token."""
        verified = self._tokens.get(token)
        if verified is None:
            claims = self._signer.decode(token, field=field)
            caller = Caller(
                claims.agent_id,
                claims.agent_type,
                claims.permissions,
                claims.key_id,
                claims.credential_id,
                claims.origin_id,
            )
            verified = self._tokens[token] = Verified(caller, claims.expires_at, "token")
        return verified

    async def read_handle(self, handle: str, *, field: str) -> Verified:
        """Raises Unauthenticated, naming `field`, if the handle is unknown or revoked."""
        handle_hash = hash_handle(handle)
        verified = self._handles.get(handle_hash)
        if verified is None:
            credential = await self._store.credentials.find_by_handle(handle_hash)
            if credential is None or credential.revoked_at is not None:
                raise Unauthenticated("The agent handle is not valid.", field=field)
            caller = Caller(
                credential.agent_id,
                credential.agent_type,
                credential.permissions,
                credential.key_id,
                credential.id,
                credential.origin_id,
            )
            expires_at_s = credential.expires_at.timestamp()
            verified = self._handles[handle_hash] = Verified(caller, expires_at_s, "agent handle")
        return verified
