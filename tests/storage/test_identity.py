"""The contract of storage/base.py: keys, credentials and the generation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared_context_server.errors import Unauthenticated
from shared_context_server.models import ApiKey, Credential, Permission
from shared_context_server.storage import Storage
from shared_context_server.storage.base import AuditQuery, AuthState
from tests.storage.builders import NOON, at, make_audit

KEY = ApiKey(
    id="key_1",
    agent_id="alice",
    permissions=frozenset({Permission.READ, Permission.WRITE}),
    secret_hash="5ec2e7",
    created_at=NOON,
)


def make_credential(
    credential_id: str = "jti_1", *, life: timedelta = timedelta(days=1)
) -> Credential:
    """Of the real now, because what is revoked is told until it has expired."""
    issued_at = datetime.now(UTC)
    return Credential(
        id=credential_id,
        agent_id="alice",
        agent_type="claude",
        permissions=frozenset({Permission.READ}),
        key_id="key_1",
        handle_hash=f"hash of {credential_id}",
        issued_at=issued_at,
        expires_at=issued_at + life,
    )


async def get_state(storage: Storage) -> AuthState:
    state = await storage.get_auth_state(None)
    assert state is not None
    return state


async def count_audit(storage: Storage, event_type: str) -> int:
    return len(await storage.list_audit(AuditQuery(limit=100, event_type=event_type)))


# Keys


async def test_keys_come_back_as_added_by_creation(storage: Storage) -> None:
    later = replace(KEY, id="key_0", created_at=at(1), permissions=frozenset(Permission))
    await storage.add_key(later, make_audit("added"))
    await storage.add_key(KEY, make_audit("added"))
    assert await storage.list_keys() == [KEY, later]
    assert (await get_state(storage)).keys == {"key_1": KEY, "key_0": later}
    assert await count_audit(storage, "added") == 2


async def test_a_revoked_key_is_listed_and_not_active(storage: Storage) -> None:
    await storage.add_key(KEY, make_audit())
    assert await storage.revoke_key("key_1", at(5), make_audit("revoked"))
    assert await storage.list_keys() == [replace(KEY, revoked_at=at(5))]
    assert (await get_state(storage)).keys == {}
    assert not await storage.revoke_key("key_1", at(6), make_audit("revoked"))
    assert not await storage.revoke_key("key_9", at(6), make_audit("revoked"))
    assert await storage.list_keys() == [replace(KEY, revoked_at=at(5))]
    assert await count_audit(storage, "revoked") == 1


# Credentials


async def test_a_credential_is_found_by_id_and_by_handle(storage: Storage) -> None:
    credential = make_credential()
    await storage.add_credential(credential, make_audit("issued"))
    assert await storage.find_credential("jti_1") == credential
    assert await storage.find_credential_by_handle("hash of jti_1") == credential
    assert await storage.find_credential("jti_2") is None
    assert await storage.find_credential_by_handle("jti_1") is None
    assert await count_audit(storage, "issued") == 1


async def test_a_revoked_credential_is_found_and_told(storage: Storage) -> None:
    credential = make_credential()
    now = credential.issued_at + timedelta(seconds=1)
    await storage.add_credential(credential, make_audit())
    assert await storage.revoke_credentials("jti_1", now, make_audit("revoked"))
    revoked = replace(credential, revoked_at=now)
    assert await storage.find_credential("jti_1") == revoked
    assert await storage.find_credential_by_handle("hash of jti_1") == revoked
    assert (await get_state(storage)).revoked_families == {"jti_1"}
    assert not await storage.revoke_credentials("jti_1", now, make_audit("revoked"))
    assert not await storage.revoke_credentials("jti_9", now, make_audit("revoked"))
    assert await count_audit(storage, "revoked") == 1


async def test_a_key_keeps_the_type_it_is_bound_to(storage: Storage) -> None:
    bound = replace(KEY, agent_type="claude")
    await storage.add_key(bound, make_audit())
    assert await storage.list_keys() == [bound]
    assert (await get_state(storage)).keys == {"key_1": bound}


async def test_revoking_a_family_ends_all_tokens_of_it_and_no_other(storage: Storage) -> None:
    first = make_credential("jti_1")
    refreshed = replace(make_credential("jti_2"), origin_id="jti_1")
    other = make_credential("jti_3")
    for credential in (first, refreshed, other):
        await storage.add_credential(credential, make_audit())
    now = datetime.now(UTC)
    assert await storage.revoke_credentials("jti_1", now, make_audit("revoked"))
    assert await storage.find_credential("jti_1") == replace(first, revoked_at=now)
    assert await storage.find_credential("jti_2") == replace(refreshed, revoked_at=now)
    assert await storage.find_credential("jti_3") == other
    assert (await get_state(storage)).revoked_families == {"jti_1"}
    assert await count_audit(storage, "revoked") == 1


async def test_a_revoked_family_takes_no_further_token(storage: Storage) -> None:
    await storage.add_credential(make_credential("jti_1"), make_audit())
    await storage.revoke_credentials("jti_1", datetime.now(UTC), make_audit())
    late = replace(make_credential("jti_2"), origin_id="jti_1")
    with pytest.raises(Unauthenticated):
        await storage.add_credential(late, make_audit("issued"))
    assert await storage.find_credential_by_handle(late.handle_hash) is None
    assert await count_audit(storage, "issued") == 0


async def test_a_family_is_found_and_revoked_after_its_first_token_was_purged(
    storage: Storage,
) -> None:
    refreshed = replace(make_credential("jti_2"), origin_id="jti_1")
    await storage.add_credential(refreshed, make_audit())
    assert await storage.find_credential("jti_1") == refreshed
    assert await storage.revoke_credentials("jti_1", datetime.now(UTC), make_audit())
    assert (await get_state(storage)).revoked_families == {"jti_1"}


async def test_an_expired_credential_is_not_active_and_not_told_as_revoked(
    storage: Storage,
) -> None:
    expired = make_credential("old", life=timedelta(seconds=-1))
    await storage.add_credential(expired, make_audit())
    await storage.add_credential(
        replace(make_credential("gone", life=timedelta(seconds=-1)), revoked_at=NOON), make_audit()
    )
    assert not await storage.revoke_credentials("old", datetime.now(UTC), make_audit())
    assert (await get_state(storage)).revoked_families == frozenset()
    assert await storage.find_credential("old") == expired


# The generation


async def test_a_known_generation_answers_none_until_something_changes(storage: Storage) -> None:
    generation = (await get_state(storage)).generation
    assert await storage.get_auth_state(generation) is None

    async def expect_growth() -> None:
        nonlocal generation
        state = await storage.get_auth_state(generation)
        assert state is not None
        assert state.generation > generation
        generation = state.generation
        assert await storage.get_auth_state(generation) is None

    await storage.add_key(KEY, make_audit())
    await expect_growth()
    await storage.revoke_key("key_1", at(1), make_audit())
    await expect_growth()
    await storage.add_credential(make_credential(), make_audit())
    await storage.revoke_credentials("jti_1", datetime.now(UTC), make_audit())
    await expect_growth()


async def test_issuing_a_credential_leaves_the_generation(storage: Storage) -> None:
    """Else every authentication would make every process read all keys again."""
    generation = (await get_state(storage)).generation
    await storage.add_credential(make_credential(), make_audit())
    await storage.revoke_key("key_9", at(1), make_audit())
    await storage.revoke_credentials("jti_9", at(1), make_audit())
    assert await storage.get_auth_state(generation) is None
