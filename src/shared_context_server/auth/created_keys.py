"""Create, replace, list and revoke the API keys that are bound to agents."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from pydantic import JsonValue

from shared_context_server.auth.key_cache import KeyCache
from shared_context_server.auth.key_lives import (
    DEFAULT_OVERLAP,
    MAX_KEY_LIFE,
    make_record,
    require_replaceable,
)
from shared_context_server.auth.name_claims import NameClaims
from shared_context_server.errors import InvalidArgument
from shared_context_server.models import ApiKey, AuditEntry, Caller, JsonObject, Permission
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import Store


class CreatedKeys:
    """The created keys of one server. A change applies at once in this process, and within a second in
    all others. Every method may raise Unavailable."""

    def __init__(self, store: Store, names: NameClaims, cache: KeyCache) -> None:
        self._store = store
        self._names = names
        self._cache = cache

    async def create(
        self,
        agent_id: str,
        permissions: Iterable[Permission],
        *,
        agent_type: str | None = None,
        expires_at: datetime | None = None,
        label: str | None = None,
        by: Caller | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key that is bound to the agent, and to the type unless that is None. Return its
        record and the key itself, which is not stored.

        `agent_id` with a * is a pattern: the key is for all agents that match. `permissions` are the
        most that the key allows; admin includes read and write. `by`: who creates it; None for a
        command on the server's machine. Raises InvalidArgument.
        """
        record, key = await make_record(
            self._names,
            agent_id,
            permissions,
            agent_type=agent_type,
            expires_at=expires_at,
            label=label,
        )
        audit = _audit_of_key("key_created", agent_id, _describe_key(record), by)
        await self._store.credentials.add_key(record, audit)
        await self._cache.get(max_age_s=0)
        return record, key

    async def rotate(
        self,
        key_id: str,
        *,
        overlap: timedelta = DEFAULT_OVERLAP,
        expires_at: datetime | None = None,
        by: Caller | None = None,
    ) -> tuple[ApiKey, str]:
        """Replace a created key by a new one for the same agents, type and permissions. Return the new
        record and the new key.

        The old key and its tokens are valid for `overlap` longer; 0 ends them at once. The new key
        expires at `expires_at`; None: it lives as long as the old one was meant to live. `by`: as in
        create. Raises InvalidArgument.
        """
        keys = {key.id: key for key in await self._store.credentials.list_keys()}
        old = require_replaceable(keys.get(key_id))
        if not timedelta() <= overlap <= MAX_KEY_LIFE:
            raise InvalidArgument("overlap: must be 0 to ten years.", field="overlap")
        now = utc_now()
        if expires_at is None and old.expires_at is not None:
            expires_at = now + (old.expires_at - old.created_at)
        record, key = await make_record(
            self._names,
            old.agent_id,
            old.permissions,
            agent_type=old.agent_type,
            expires_at=expires_at,
            label=old.label,
        )
        details: JsonObject = {"replaces": old.id, "overlap_s": int(overlap.total_seconds())}
        audit = _audit_of_key("key_rotated", old.agent_id, _describe_key(record) | details, by)
        if not await self._store.credentials.replace_key(key_id, record, now + overlap, audit):
            raise InvalidArgument("This key was rotated or revoked meanwhile.", field="key_id")
        await self._cache.get(max_age_s=0)
        return record, key

    async def list_all(self) -> list[ApiKey]:
        """All created keys with the revoked ones, the oldest first."""
        return await self._store.credentials.list_keys()

    async def revoke(self, key_id: str, *, by: Caller | None = None) -> bool:
        """Revoke a created key and all its tokens. Return False if there is no such active key. `by`:
        as in create."""
        keys = {key.id: key for key in await self._store.credentials.list_keys()}
        if key_id not in keys:
            return False
        audit = _audit_of_key("key_revoked", keys[key_id].agent_id, {"key_id": key_id}, by)
        is_revoked = await self._store.credentials.revoke_key(key_id, utc_now(), audit)
        await self._cache.get(max_age_s=0)
        return is_revoked


def _audit_of_key(
    event_type: str, agent_id: str, details: JsonObject, by: Caller | None
) -> AuditEntry:
    """Return the entry of who did it; for a command, of the agent that the key belongs to."""
    if by is None:
        return AuditEntry(event_type, agent_id, details=details)
    return AuditEntry.by(by, event_type, details={**details, "of_agent_id": agent_id})


def _describe_key(key: ApiKey) -> JsonObject:
    return {
        "key_id": key.id,
        "permissions": list_names(key.permissions),
        "agent_type": key.agent_type,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
    }


def list_names(permissions: frozenset[Permission]) -> list[JsonValue]:
    """Return the names of the permissions in their usual order."""
    return [p.value for p in Permission if p in permissions]
