"""Checks what an operator asks of a new key, and notes when keys are used."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from shared_context_server.auth.keys import (
    ALL_PERMISSIONS,
    generate_key,
    hash_key,
    make_key_id,
)
from shared_context_server.auth.name_claims import NameClaims
from shared_context_server.auth.name_patterns import check_name_pattern, is_name_pattern
from shared_context_server.errors import InvalidArgument, SharedContextError
from shared_context_server.models import ApiKey, Permission
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import Store

DEFAULT_OVERLAP = timedelta(hours=24)
MAX_KEY_LIFE = timedelta(days=3650)
MAX_LABEL_CHARS = 200


async def make_record(
    names: NameClaims,
    agent_id: str,
    permissions: Iterable[Permission],
    *,
    agent_type: str | None,
    expires_at: datetime | None,
    label: str | None,
) -> tuple[ApiKey, str]:
    """Return the record of a new key, and the key itself. Raises InvalidArgument."""
    is_pattern = is_name_pattern(agent_id)
    wrong: SharedContextError | None
    if is_pattern:
        wrong = check_name_pattern(agent_id, "agent_id")
    else:
        wrong = await names.check_agent_ids([agent_id], "agent_id")
    if wrong is None and agent_type is not None:
        wrong = await names.check_agent_type(agent_type, "agent_type")
    if wrong is not None:
        raise wrong
    ceiling = frozenset(permissions)
    if not ceiling:
        raise InvalidArgument("A key needs at least one permission.", field="permissions")
    if label is not None and (len(label) > MAX_LABEL_CHARS or "\0" in label):
        raise InvalidArgument(
            f"label: must be text of at most {MAX_LABEL_CHARS} characters.", field="label"
        )
    now = utc_now()
    if expires_at is not None and not now < expires_at <= now + MAX_KEY_LIFE:
        raise InvalidArgument(
            "expires_at: must be in the future, at most ten years from now.", field="expires_at"
        )
    key = generate_key()
    record = ApiKey(
        make_key_id(),
        agent_id,
        ALL_PERMISSIONS if Permission.ADMIN in ceiling else ceiling,
        hash_key(key),
        now,
        agent_type=agent_type,
        is_pattern=is_pattern,
        expires_at=expires_at,
        label=label or None,
    )
    return record, key


def require_replaceable(key: ApiKey | None) -> ApiKey:
    """Return the key. Raises InvalidArgument if it is None, or has ended, or was rotated before."""
    if key is None:
        raise InvalidArgument("There is no key with this id.", field="key_id")
    if key.replaced_by is not None:
        raise InvalidArgument(
            f"This key was rotated before; {key.replaced_by} replaced it.",
            field="key_id",
            suggestion=f"Rotate {key.replaced_by}.",
        )
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= utc_now()):
        raise InvalidArgument(
            "This key is not valid any more.",
            field="key_id",
            suggestion="Create a new one: scs keys create.",
        )
    return key


class KeyUses:
    """The keys that this process has seen in use since the last flush.

    `note` costs one addition to a set. The server calls `flush` every FLUSH_INTERVAL_S, before it lists
    keys, and when it stops.
    """

    FLUSH_INTERVAL_S = 60.0
    MAX_NOTED = 10_000

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted: set[str] = set()

    def note(self, key_id: str) -> None:
        """Remember that the key, or a token of it, was presented."""
        if len(self._noted) < self.MAX_NOTED:
            self._noted.add(key_id)

    async def flush(self) -> None:
        """Write the time of use to the store. What cannot be written is kept for the next time."""
        noted, self._noted = self._noted, set()
        if not noted:
            return
        try:
            await self._store.credentials.note_key_use(noted, utc_now())
        except BaseException:
            self._noted |= noted
            raise
