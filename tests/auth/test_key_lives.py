"""Keys that expire, are replaced, or are for all agents that match; secrets that change; bound identity."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from shared_context_server.auth.client_sessions import ClientSessions
from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity
from shared_context_server.auth.local_clients import connect_local_client
from shared_context_server.auth.name_patterns import matches_pattern
from shared_context_server.cli.hub.place import DEFAULT_AGENT
from shared_context_server.errors import InvalidArgument, PermissionDenied, Unauthenticated
from shared_context_server.models import ApiKey
from shared_context_server.settings import IdentityMode, Settings
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import Store
from tests.auth.conftest import ADMIN, READ, WRITE, authenticate, connect
from tests.settings import ADMIN_API_KEY, API_KEY, JWT_SECRET_KEY, make_settings
from tests.until import until

NEW_SECRET = "another-secret-that-signs-tokens-0123456789"
SOON = timedelta(milliseconds=300)
HOUR = timedelta(hours=1)


async def list_by_id(identity: Identity) -> dict[str, ApiKey]:
    return {key.id: key for key in await identity.keys.list_all()}


# Expiry


async def test_an_expired_key_and_its_tokens_are_refused_and_say_why(identity: Identity) -> None:
    ends_at = utc_now() + SOON
    _, key = await identity.keys.create("bob", [READ, WRITE], expires_at=ends_at)
    connection = await connect(identity, key)
    issued = await authenticate(identity, "bob", api_key=key)
    assert connection.refused is None
    assert issued.expires_in <= 1

    await identity.have_keys_changed()
    await until(lambda: utc_now() > ends_at)
    with pytest.raises(Unauthenticated, match="has expired"):
        await authenticate(identity, "bob", api_key=key, connection=connection)
    refused = (await connect(identity, key)).refused
    assert isinstance(refused, Unauthenticated)
    assert "has expired" in refused.message
    with pytest.raises(Unauthenticated):
        await identity.require_current(connection.caller)
    assert await identity.have_keys_changed()


async def test_a_key_expires_within_the_time_that_is_allowed(identity: Identity) -> None:
    for wrong in (utc_now(), utc_now() - HOUR, utc_now() + timedelta(days=4000)):
        with pytest.raises(InvalidArgument) as caught:
            await identity.keys.create("bob", [READ], expires_at=wrong)
        assert caught.value.details["field"] == "expires_at"
    with pytest.raises(InvalidArgument, match="label"):
        await identity.keys.create("bob", [READ], label="x" * 201)


# Rotation


async def test_a_rotated_key_has_a_successor_and_stays_valid_for_a_while(
    identity: Identity,
) -> None:
    life = timedelta(days=90)
    record, key = await identity.keys.create(
        "bob", [READ], agent_type="coder", label="ci", expires_at=utc_now() + life
    )
    new, new_key = await identity.keys.rotate(record.id, overlap=HOUR)
    assert (new.agent_id, new.agent_type, new.label) == ("bob", "coder", "ci")
    assert new.permissions == {READ}
    assert new.expires_at is not None
    assert abs(new.expires_at - utc_now() - life) < HOUR
    for one in (key, new_key):
        assert (await connect(identity, one)).caller.agent_id == "bob"
    old = (await list_by_id(identity))[record.id]
    assert old.replaced_by == new.id
    assert old.expires_at is not None
    assert old.expires_at - utc_now() <= HOUR
    assert old.describe_status(utc_now()) == "replaced"
    with pytest.raises(InvalidArgument, match=new.id):
        await identity.keys.rotate(record.id)


async def test_without_overlap_the_old_key_ends_at_once_and_names_its_successor(
    identity: Identity,
) -> None:
    record, key = await identity.keys.create("bob", [READ])
    new, new_key = await identity.keys.rotate(record.id, overlap=timedelta())
    refused = (await connect(identity, key)).refused
    assert isinstance(refused, Unauthenticated)
    assert new.id in refused.message
    assert (await connect(identity, new_key)).refused is None


async def test_only_a_valid_key_can_be_rotated(identity: Identity) -> None:
    record, _ = await identity.keys.create("bob", [READ])
    await identity.keys.revoke(record.id)
    for key_id in (record.id, "key_unknown"):
        with pytest.raises(InvalidArgument) as caught:
            await identity.keys.rotate(key_id)
        assert caught.value.details["field"] == "key_id"
    other, _ = await identity.keys.create("bob", [READ])
    with pytest.raises(InvalidArgument, match="overlap"):
        await identity.keys.rotate(other.id, overlap=-HOUR)


# Patterns


async def test_a_key_for_a_pattern_is_for_every_agent_that_matches_and_no_other(
    identity: Identity,
) -> None:
    _, key = await identity.keys.create("team-*", [READ])
    for name in ("team-1", "team-"):
        assert (await connect(identity, key, agent_id=name)).caller.agent_id == name
        assert (await authenticate(identity, name, api_key=key)).agent_id == name
    for other in ("team", "Team-1", "alice", None):
        assert isinstance((await connect(identity, key, agent_id=other)).refused, PermissionDenied)
    with pytest.raises(PermissionDenied) as caught:
        await authenticate(identity, "alice", api_key=key, connection=Connection())
    assert caught.value.details["field"] == "agent_id"


async def test_a_pattern_for_everybody_is_refused(identity: Identity) -> None:
    for pattern in ("*", "**", "* *"):
        with pytest.raises(InvalidArgument) as caught:
            await identity.keys.create(pattern, [READ])
        assert caught.value.details["field"] == "agent_id"


def test_only_the_star_is_special() -> None:
    assert matches_pattern("a[1]?b", "a[1]?*")
    assert not matches_pattern("a1xb", "a[1]?*")
    assert not matches_pattern("x" * 128, "*a" * 60)


# Last use


async def test_the_last_use_of_a_key_is_recorded_by_key_and_by_token(
    identity: Identity, store: Store
) -> None:
    by_key, key = await identity.keys.create("bob", [READ])
    by_token, other = await identity.keys.create("carl", [READ])
    unused, _ = await identity.keys.create("dora", [READ])
    issued = await authenticate(identity, "carl", api_key=other)
    for _ in range(2):  # the second answer comes from the cache
        await connect(identity, key)
    await identity.uses.flush()
    await connect(identity, token=issued.token)
    await identity.uses.flush()
    listed = await list_by_id(identity)
    assert listed[unused.id].last_used_at is None
    for record in (by_key, by_token):
        used_at = listed[record.id].last_used_at
        assert used_at is not None
        assert used_at >= record.created_at


# The secret of tokens


def with_new_secret(tmp_path: Path, **changed: str) -> Settings:
    return make_settings(tmp_path, jwt_secret_key=NEW_SECRET, **changed)


async def test_tokens_and_handles_of_a_previous_secret_stay_valid_and_are_the_same_keys(
    identity: Identity, store: Store, tmp_path: Path
) -> None:
    issued = await authenticate(identity, "bob")
    settings = with_new_secret(tmp_path, jwt_previous_secret_keys=f" {'x' * 32}, {JWT_SECRET_KEY} ")
    renewed = Identity(store, settings)
    by_key = await connect(renewed, API_KEY, agent_id="alice")
    by_token = await connect(renewed, token=issued.token)
    assert by_token.refused is None
    assert by_token.caller.agent_id == "bob"
    assert by_token.caller.key_id == by_key.caller.key_id
    assert issued.agent_handle is not None
    assert (await renewed.resolve(issued.agent_handle, by_key)).agent_id == "bob"
    refreshed = await renewed.refresh(by_token.caller, by_token)
    final = Identity(store, with_new_secret(tmp_path))
    assert (await connect(final, token=refreshed.token)).refused is None
    assert isinstance((await connect(final, token=issued.token)).refused, Unauthenticated)
    assert await renewed.revoke(by_token.caller, issued.credential_id) == issued.credential_id


def test_session_ids_of_a_previous_secret_still_name_their_client() -> None:
    made = ClientSessions(b"old" * 20).make_id("some client")
    assert made is not None
    assert ClientSessions(b"new" * 20, [b"old" * 20]).read_name(made) == "some client"
    assert ClientSessions(b"new" * 20).read_name(made) is None


# Where every key has to be bound


async def test_bound_identity_refuses_the_shared_key_and_lets_the_admin_be_one_agent(
    identity: Identity, store: Store, tmp_path: Path
) -> None:
    earlier = await authenticate(identity, "bob")
    bound = Identity(store, make_settings(tmp_path, identity=IdentityMode.BOUND))
    shared = await connect(bound, API_KEY, agent_id="alice")
    assert isinstance(shared.refused, PermissionDenied)
    assert "keys create" in shared.refused.hint
    assert shared.grant is None
    with pytest.raises(PermissionDenied):
        await bound.authenticate(
            connection=Connection(),
            agent_id="alice",
            agent_type=None,
            api_key=API_KEY,
            requested_permissions=[READ],
        )
    assert isinstance((await connect(bound, token=earlier.token)).refused, Unauthenticated)
    admin = await connect(bound, ADMIN_API_KEY)
    assert (admin.caller.agent_id, ADMIN in admin.caller.permissions) == (DEFAULT_AGENT, True)
    another = await connect(bound, ADMIN_API_KEY, agent_id="alice")
    assert isinstance(another.refused, PermissionDenied)
    _, key = await bound.keys.create("alice", [READ])
    assert (await connect(bound, key)).caller.agent_id == "alice"
    assert isinstance((await connect(bound, key, agent_id="bob")).refused, PermissionDenied)


@pytest.mark.parametrize("is_admin", [False, True])
async def test_a_process_that_can_read_the_keys_may_be_any_agent_still(
    store: Store, tmp_path: Path, is_admin: bool
) -> None:
    bound = Identity(store, make_settings(tmp_path, identity=IdentityMode.BOUND))
    local = await connect_local_client(bound, agent_id="alice", agent_type=None, is_admin=is_admin)
    assert local.refused is None
    assert (local.caller.agent_id, local.caller.is_admin) == ("alice", is_admin)
    await bound.require_current(local.caller)


def test_bound_identity_needs_authentication(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="AUTH_ENABLED"):
        make_settings(tmp_path, identity=IdentityMode.BOUND, auth_enabled=False)


@pytest.mark.parametrize("value", ["short", ",".join(["x" * 40] * 6)])
def test_previous_secrets_are_few_and_long_enough(tmp_path: Path, value: str) -> None:
    with pytest.raises(ValueError, match="jwt_previous_secret_keys"):
        make_settings(tmp_path, jwt_previous_secret_keys=value)
