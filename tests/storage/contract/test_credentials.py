"""The contract of storage/contract: keys, credentials and the generation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared_context_server.errors import Unauthenticated
from shared_context_server.models import ApiKey, Credential, Permission
from shared_context_server.storage import Store
from shared_context_server.storage.contract import AuditQuery, AuthState
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


async def get_state(store: Store) -> AuthState:
    state = await store.credentials.get_auth_state(None)
    assert state is not None
    return state


async def count_audit(store: Store, event_type: str) -> int:
    return len(await store.audit.list_newest(AuditQuery(limit=100, event_type=event_type)))


# Keys


async def test_keys_come_back_as_added_by_creation(store: Store) -> None:
    later = replace(KEY, id="key_0", created_at=at(1), permissions=frozenset(Permission))
    await store.credentials.add_key(later, make_audit("added"))
    await store.credentials.add_key(KEY, make_audit("added"))
    assert await store.credentials.list_keys() == [KEY, later]
    assert (await get_state(store)).keys == {"key_1": KEY, "key_0": later}
    assert await count_audit(store, "added") == 2


async def test_a_revoked_key_is_listed_and_not_active(store: Store) -> None:
    await store.credentials.add_key(KEY, make_audit())
    assert await store.credentials.revoke_key("key_1", at(5), make_audit("revoked"))
    assert await store.credentials.list_keys() == [replace(KEY, revoked_at=at(5))]
    assert (await get_state(store)).keys == {}
    assert not await store.credentials.revoke_key("key_1", at(6), make_audit("revoked"))
    assert not await store.credentials.revoke_key("key_9", at(6), make_audit("revoked"))
    assert await store.credentials.list_keys() == [replace(KEY, revoked_at=at(5))]
    assert await count_audit(store, "revoked") == 1


async def test_a_key_keeps_what_it_was_created_with(store: Store) -> None:
    key = replace(
        KEY,
        agent_id="team-*",
        is_pattern=True,
        expires_at=at(9),
        label="of the build",
        agent_type="x",
    )
    await store.credentials.add_key(key, make_audit())
    assert await store.credentials.list_keys() == [key]
    assert (await get_state(store)).keys == {"key_1": key}


async def test_a_successor_ends_its_key_and_only_one_can_be_that(store: Store) -> None:
    ends_first = replace(KEY, id="key_2", created_at=at(1), secret_hash="b", expires_at=at(3))
    for key in (KEY, ends_first):
        await store.credentials.add_key(key, make_audit())
    before = (await get_state(store)).generation
    for number, key in enumerate((KEY, ends_first)):
        successor = replace(
            key, id=f"new_{number}", created_at=at(5 + number), secret_hash=f"{number}"
        )
        args = key.id, successor, at(8)
        assert await store.credentials.replace_key(*args, make_audit("rotated"))
        late = replace(successor, id="too_late", secret_hash="late")
        assert not await store.credentials.replace_key(key.id, late, at(9), make_audit("rotated"))
    listed = {key.id: key for key in await store.credentials.list_keys()}
    assert (listed["key_1"].expires_at, listed["key_1"].replaced_by) == (at(8), "new_0")
    assert (listed["key_2"].expires_at, listed["key_2"].replaced_by) == (at(3), "new_1")
    assert listed.keys() == {"key_1", "key_2", "new_0", "new_1"}
    assert (await get_state(store)).generation != before
    assert await count_audit(store, "rotated") == 2
    await store.credentials.revoke_key("new_0", at(9), make_audit())
    again = replace(KEY, id="again", secret_hash="again")
    assert not await store.credentials.replace_key("new_0", again, at(9), make_audit())


async def test_the_use_of_a_key_is_noted_once_a_minute_and_changes_nothing_else(
    store: Store,
) -> None:
    await store.credentials.add_key(KEY, make_audit())
    before = await get_state(store)
    for second, noted in ((100, 100), (159, 100), (160, 160), (90, 160)):
        await store.credentials.note_key_use({"key_1", "unknown"}, at(second))
        assert await store.credentials.list_keys() == [replace(KEY, last_used_at=at(noted))]
    assert (await get_state(store)).generation == before.generation


# Credentials


async def test_a_credential_is_found_by_id_and_by_handle(store: Store) -> None:
    credential = make_credential()
    await store.credentials.add(credential, make_audit("issued"))
    assert await store.credentials.find("jti_1") == credential
    assert await store.credentials.find_by_handle("hash of jti_1") == credential
    assert await store.credentials.find("jti_2") is None
    assert await store.credentials.find_by_handle("jti_1") is None
    assert await count_audit(store, "issued") == 1


async def test_a_revoked_credential_is_found_and_told(store: Store) -> None:
    credential = make_credential()
    now = credential.issued_at + timedelta(seconds=1)
    await store.credentials.add(credential, make_audit())
    assert await store.credentials.revoke_family("jti_1", now, make_audit("revoked"))
    revoked = replace(credential, revoked_at=now)
    assert await store.credentials.find("jti_1") == revoked
    assert await store.credentials.find_by_handle("hash of jti_1") == revoked
    assert (await get_state(store)).revoked_families == {"jti_1"}
    assert not await store.credentials.revoke_family("jti_1", now, make_audit("revoked"))
    assert not await store.credentials.revoke_family("jti_9", now, make_audit("revoked"))
    assert await count_audit(store, "revoked") == 1


async def test_a_key_keeps_the_type_it_is_bound_to(store: Store) -> None:
    bound = replace(KEY, agent_type="claude")
    await store.credentials.add_key(bound, make_audit())
    assert await store.credentials.list_keys() == [bound]
    assert (await get_state(store)).keys == {"key_1": bound}


async def test_revoking_a_family_ends_all_tokens_of_it_and_no_other(store: Store) -> None:
    first = make_credential("jti_1")
    refreshed = replace(make_credential("jti_2"), origin_id="jti_1")
    other = make_credential("jti_3")
    for credential in (first, refreshed, other):
        await store.credentials.add(credential, make_audit())
    now = datetime.now(UTC)
    assert await store.credentials.revoke_family("jti_1", now, make_audit("revoked"))
    assert await store.credentials.find("jti_1") == replace(first, revoked_at=now)
    assert await store.credentials.find("jti_2") == replace(refreshed, revoked_at=now)
    assert await store.credentials.find("jti_3") == other
    assert (await get_state(store)).revoked_families == {"jti_1"}
    assert await count_audit(store, "revoked") == 1


async def test_a_revoked_family_takes_no_further_token(store: Store) -> None:
    await store.credentials.add(make_credential("jti_1"), make_audit())
    await store.credentials.revoke_family("jti_1", datetime.now(UTC), make_audit())
    late = replace(make_credential("jti_2"), origin_id="jti_1")
    with pytest.raises(Unauthenticated):
        await store.credentials.add(late, make_audit("issued"))
    assert await store.credentials.find_by_handle(late.handle_hash) is None
    assert await count_audit(store, "issued") == 0


async def test_a_family_is_found_and_revoked_after_its_first_token_was_purged(
    store: Store,
) -> None:
    refreshed = replace(make_credential("jti_2"), origin_id="jti_1")
    await store.credentials.add(refreshed, make_audit())
    assert await store.credentials.find("jti_1") == refreshed
    assert await store.credentials.revoke_family("jti_1", datetime.now(UTC), make_audit())
    assert (await get_state(store)).revoked_families == {"jti_1"}


async def test_an_expired_credential_is_not_active_and_not_told_as_revoked(
    store: Store,
) -> None:
    expired = make_credential("old", life=timedelta(seconds=-1))
    await store.credentials.add(expired, make_audit())
    await store.credentials.add(
        replace(make_credential("gone", life=timedelta(seconds=-1)), revoked_at=NOON), make_audit()
    )
    assert not await store.credentials.revoke_family("old", datetime.now(UTC), make_audit())
    assert (await get_state(store)).revoked_families == frozenset()
    assert await store.credentials.find("old") == expired


# The generation


async def test_a_known_generation_answers_none_until_something_changes(store: Store) -> None:
    generation = (await get_state(store)).generation
    assert await store.credentials.get_auth_state(generation) is None

    async def expect_growth() -> None:
        nonlocal generation
        state = await store.credentials.get_auth_state(generation)
        assert state is not None
        assert state.generation > generation
        generation = state.generation
        assert await store.credentials.get_auth_state(generation) is None

    await store.credentials.add_key(KEY, make_audit())
    await expect_growth()
    await store.credentials.revoke_key("key_1", at(1), make_audit())
    await expect_growth()
    await store.credentials.add(make_credential(), make_audit())
    await store.credentials.revoke_family("jti_1", datetime.now(UTC), make_audit())
    await expect_growth()


async def test_issuing_a_credential_leaves_the_generation(store: Store) -> None:
    """Else every authentication would make every process read all keys again."""
    generation = (await get_state(store)).generation
    await store.credentials.add(make_credential(), make_audit())
    await store.credentials.revoke_key("key_9", at(1), make_audit())
    await store.credentials.revoke_family("jti_9", at(1), make_audit())
    assert await store.credentials.get_auth_state(generation) is None
