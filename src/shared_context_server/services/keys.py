"""API keys, for admins: list them with their use, create and revoke them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument
from shared_context_server.models import ApiKey, Caller, Permission
from shared_context_server.services.context import Services
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import KeyUse

UNUSED = KeyUse(tokens=0, agents=0, last_issued_at=None)


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A created key. `use`: of its tokens that are valid now; a key also works without any. `status`:
    active, replaced, expired or revoked."""

    key: ApiKey
    use: KeyUse
    status: str


async def list_keys(services: Services, caller: Caller) -> list[ListedKey]:
    """Return all created keys, active ones first, then by creation, newest first. The keys of the
    settings are not among them."""
    policy.require_permission(caller, Permission.ADMIN)
    await services.identity.uses.flush()
    keys = await services.identity.keys.list_all()
    now = utc_now()
    uses = await services.store.credentials.measure_keys(now=now)
    keys.sort(key=lambda key: (key.revoked_at is None, key.created_at), reverse=True)
    return [ListedKey(key, uses.get(key.id, UNUSED), key.describe_status(now)) for key in keys]


async def get_key(services: Services, caller: Caller, key_id: str) -> ListedKey:
    """Return one active key with what revoking it would end. Raises InvalidArgument."""
    for listed in await list_keys(services, caller):
        if listed.key.id == key_id and listed.key.revoked_at is None:
            return listed
    raise _unknown(key_id)


async def create_key(
    services: Services,
    caller: Caller,
    *,
    agent_id: str,
    permissions: Sequence[Permission],
    agent_type: str | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Create a key for an agent, or for all that match a pattern; return its record and the key itself, which is not stored."""
    policy.require_permission(caller, Permission.ADMIN)
    return await services.identity.keys.create(
        agent_id, permissions, agent_type=agent_type, expires_at=expires_at, by=caller
    )


async def rotate_key(
    services: Services, caller: Caller, key_id: str, *, overlap: timedelta
) -> tuple[ApiKey, str]:
    """Replace an active key by a new one for the same agents, type and permissions; return its record
    and the key itself, which is not stored. The old key is valid for `overlap` longer. Raises
    InvalidArgument."""
    policy.require_permission(caller, Permission.ADMIN)
    return await services.identity.keys.rotate(key_id, overlap=overlap, by=caller)


async def revoke_key(services: Services, caller: Caller, key_id: str) -> None:
    """Revoke a created key and all its tokens. Raises InvalidArgument if there is no such active key."""
    policy.require_permission(caller, Permission.ADMIN)
    if not await services.identity.keys.revoke(key_id, by=caller):
        raise _unknown(key_id)


def _unknown(key_id: str) -> InvalidArgument:
    return InvalidArgument(
        "There is no active key with this id.",
        field="key_id",
        suggestion="It may have been revoked meanwhile. The list of keys shows which are active.",
    )
