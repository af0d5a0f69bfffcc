"""From a presented token or agent handle to the caller it stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cachetools import LRUCache

from shared_context_server.auth.known_keys import KnownKeys
from shared_context_server.auth.tokens import TokenSigner, hash_handle
from shared_context_server.errors import Unauthenticated
from shared_context_server.models import Caller
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import Store

MAX_REMEMBERED = 10_000  # tokens, and handles: about 1 KiB each


@dataclass(frozen=True, slots=True)
class Verified:
    """A genuine credential: whom it names and until when. Whether it still counts, `require_valid`
    says at every use, so that one may be remembered for as long as there is room."""

    caller: Caller
    expires_at_s: float
    what: str


def require_valid(verified: Verified, known: KnownKeys, field: str) -> Caller:
    """The caller; Unauthenticated if the credential has expired or been revoked, by itself or
    with its key. It never allows more than its key does now."""
    caller = verified.caller
    if verified.expires_at_s <= utc_now().timestamp():
        raise Unauthenticated(f"The {verified.what} has expired.", field=field)
    grant = known.grants.get(caller.key_id)
    if grant is None or caller.family_id in known.revoked_families:
        raise Unauthenticated(f"The {verified.what} is not valid any more.", field=field)
    if caller.permissions <= grant.permissions:
        return caller
    return replace(caller, permissions=caller.permissions & grant.permissions)


class Verifier:
    """Reads tokens and handles, and remembers the genuine ones."""

    def __init__(self, store: Store, signer: TokenSigner) -> None:
        self._store = store
        self._signer = signer
        self._tokens: LRUCache[str, Verified] = LRUCache(MAX_REMEMBERED)
        self._handles: LRUCache[str, Verified] = LRUCache(MAX_REMEMBERED)

    def read_token(self, token: str, *, field: str) -> Verified:
        """Raise Unauthenticated, said of `field`, unless we signed it."""
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
        """Raise Unauthenticated, said of `field`, unless we issued it and it is not revoked."""
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
