"""Issuing, renewing and revoking credentials, and the handles that go with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity, IssuedToken
from shared_context_server.auth.keys import hash_key
from shared_context_server.auth.tokens import TokenClaims, TokenSigner, hash_handle
from shared_context_server.errors import (
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
)
from shared_context_server.models import Agent, ApiKey, AuditEntry, Permission
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from shared_context_server.storage.contract import AuditQuery
from tests.auth.conftest import (
    ADMIN,
    ALL,
    READ,
    WRITE,
    authenticate,
    connect,
)
from tests.settings import ADMIN_API_KEY, API_KEY, JWT_SECRET_KEY, make_settings

REVOCATION_S = 1.0


@pytest.fixture
async def other(settings: Settings, identity: Identity) -> AsyncIterator[Identity]:
    """The identity of another process on the same store."""
    async with open_storage(settings) as store:
        yield Identity(store, settings)


async def is_refused(identity: Identity, token: str) -> bool:
    return (await connect(identity, token=token)).refused is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    key=st.sampled_from([API_KEY, ADMIN_API_KEY]),
    requested=st.lists(st.sampled_from(Permission), max_size=6),
)
async def test_granted_is_what_is_requested_and_allowed(
    identity: Identity, key: str, requested: list[Permission]
) -> None:
    issued = await authenticate(identity, api_key=key, requested=tuple(requested))
    allowed = {READ, WRITE} if key == API_KEY else set(ALL)
    assert issued.permissions == tuple(p for p in ALL if p in requested and p in allowed)


async def test_a_token_comes_with_all_a_client_needs(
    identity: Identity, settings: Settings
) -> None:
    issued = await authenticate(identity, "worker-7")
    assert (issued.agent_id, issued.agent_type) == ("worker-7", "claude")
    assert issued.token_type == "Bearer"
    assert issued.expires_in == settings.jwt_expires_in
    caller = (await connect(identity, token=issued.token)).caller
    assert caller.permissions == set(issued.permissions)


async def test_the_connections_key_authenticates_any_agent(identity: Identity) -> None:
    connection = await connect(identity, API_KEY, agent_id="lead")
    issued = await authenticate(identity, "sub-1", api_key=None, connection=connection)
    assert issued.agent_id == "sub-1"


async def test_a_token_alone_does_not_authenticate_another_agent(identity: Identity) -> None:
    issued = await authenticate(identity)
    connection = await connect(identity, token=issued.token)
    with pytest.raises(Unauthenticated, match="A token cannot authenticate") as raised:
        await authenticate(identity, "sub-1", api_key=None, connection=connection)
    assert "api_key" in raised.value.hint


async def test_authenticating_needs_a_valid_key(identity: Identity) -> None:
    with pytest.raises(Unauthenticated, match="No valid API key"):
        await authenticate(identity, api_key=None)
    wrong = await connect(identity, "wrong-key-0123456789")
    with pytest.raises(Unauthenticated, match="No valid API key"):
        await authenticate(identity, api_key=None, connection=wrong)


@pytest.mark.parametrize("key", ["", "wrong-key-0123456789", API_KEY + "x"])
async def test_a_wrong_key_argument_is_refused_beside_a_right_header(
    identity: Identity, key: str
) -> None:
    connection = await connect(identity, API_KEY)
    with pytest.raises(Unauthenticated) as raised:
        await authenticate(identity, api_key=key, connection=connection)
    assert raised.value.details == {"field": "api_key"}
    assert not key or key not in repr(raised.value.body())


async def test_spaces_around_the_key_argument_do_not_matter(identity: Identity) -> None:
    assert (await authenticate(identity, api_key=f" {API_KEY}\n")).agent_id == "worker-7"


@pytest.mark.parametrize("agent_id", ["", " a", "a\x00", "x" * 129])
async def test_an_invalid_agent_id_gets_no_token(identity: Identity, agent_id: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await authenticate(identity, agent_id)
    assert raised.value.details == {"field": "agent_id"}


async def test_a_bound_key_authenticates_its_agent_only(identity: Identity) -> None:
    _, key = await identity.keys.create("bound-1", [READ, WRITE])
    issued = await authenticate(identity, "bound-1", api_key=key)
    assert issued.permissions == (READ, WRITE)
    with pytest.raises(PermissionDenied) as raised:
        await authenticate(identity, "somebody-else", api_key=key)
    assert raised.value.details == {"field": "agent_id"}


async def test_credentials_are_recorded_and_their_secrets_are_not(
    identity: Identity, store: Store
) -> None:
    issued = await authenticate(identity)
    credential = await store.credentials.find(issued.credential_id)
    assert credential is not None
    assert credential.handle_hash == hash_handle(issued.agent_handle)
    assert credential.expires_at == issued.expires_at
    [entry] = await store.audit.list_newest(AuditQuery(limit=10, event_type="agent_authenticated"))
    assert (entry.agent_id, entry.details["credential_id"]) == ("worker-7", issued.credential_id)
    for secret in (issued.token, issued.agent_handle, API_KEY):
        assert secret not in repr((credential, entry))


# auth_token


async def test_a_token_is_a_credential_by_itself(identity: Identity) -> None:
    issued = await authenticate(identity)
    caller = await identity.resolve(f" {issued.token} ", Connection())
    assert (caller.agent_id, caller.credential_id) == ("worker-7", issued.credential_id)


async def test_a_handle_selects_its_identity_where_its_key_is_presented(
    identity: Identity,
) -> None:
    issued = await authenticate(identity, "sub-1")
    lead = await authenticate(identity, "lead")
    for connection in (
        await connect(identity, API_KEY, agent_id="lead"),
        await connect(identity, token=lead.token),
    ):
        caller = await identity.resolve(issued.agent_handle, connection)
        assert (caller.agent_id, caller.agent_type) == ("sub-1", "claude")
        assert caller.credential_id == issued.credential_id


async def test_a_handle_opens_nothing_without_its_key(identity: Identity) -> None:
    issued = await authenticate(identity, "sub-1")
    _, bound_key = await identity.keys.create("bound-1", ALL)
    admin = await authenticate(identity, api_key=ADMIN_API_KEY)
    for connection in (
        Connection(),
        await connect(identity, ADMIN_API_KEY),
        await connect(identity, token=admin.token),
        await connect(identity, bound_key),
        await connect(identity, "wrong-key-0123456789"),
    ):
        with pytest.raises(PermissionDenied) as raised:
            await identity.resolve(issued.agent_handle, connection)
        assert raised.value.details == {"field": "auth_token"}
        has_key = "no API key" not in raised.value.message
        assert has_key is not connection.caller.is_anonymous
        assert issued.agent_handle not in repr(raised.value.body())


@pytest.mark.parametrize("auth_token", ["", "agt_", "agt_" + "x" * 22, "a.b.c", API_KEY, "a.b"])
async def test_anything_else_is_no_auth_token(identity: Identity, auth_token: str) -> None:
    connection = await connect(identity, API_KEY)
    with pytest.raises(Unauthenticated) as raised:
        await identity.resolve(auth_token, connection)
    assert raised.value.details == {"field": "auth_token"}


async def test_expired_credentials_are_refused_remembered_or_not(
    identity: Identity, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = await authenticate(identity)
    connection = await connect(identity, API_KEY)
    await identity.resolve(issued.token, connection)
    await identity.resolve(issued.agent_handle, connection)
    later = issued.expires_at
    monkeypatch.setattr("shared_context_server.auth.verification.utc_now", lambda: later)
    for auth_token in (issued.token, issued.agent_handle):
        with pytest.raises(Unauthenticated, match="has expired"):
            await identity.resolve(auth_token, connection)
    signer = TokenSigner(JWT_SECRET_KEY.encode())
    claims = TokenClaims("j", "a", "t", frozenset(), connection.caller.key_id, 1, 2)
    with pytest.raises(Unauthenticated, match="has expired"):
        await identity.resolve(signer.encode(claims), connection)


# Renewing and revoking


async def test_refreshing_renews_the_same_identity(identity: Identity) -> None:
    issued = await authenticate(identity, requested=(READ,))
    caller = (await connect(identity, token=issued.token)).caller
    renewed = await identity.refresh(caller, Connection())
    assert renewed.credential_id != issued.credential_id
    assert (renewed.agent_id, renewed.agent_type) == (issued.agent_id, issued.agent_type)
    assert renewed.permissions == (READ,)
    assert not await is_refused(identity, issued.token)


async def test_a_revoked_credential_cannot_be_renewed(identity: Identity) -> None:
    issued = await authenticate(identity)
    caller = (await connect(identity, token=issued.token)).caller
    await identity.revoke(caller, None)
    with pytest.raises(Unauthenticated):
        await identity.refresh(caller, Connection())


async def test_revoking_ends_the_token_and_its_handle_at_once(identity: Identity) -> None:
    issued = await authenticate(identity)
    connection = await connect(identity, API_KEY)
    caller = await identity.resolve(issued.agent_handle, connection)
    assert await identity.revoke(caller, None) == issued.credential_id
    assert await is_refused(identity, issued.token)
    for auth_token in (issued.token, issued.agent_handle):
        with pytest.raises(Unauthenticated, match="not valid any more"):
            await identity.resolve(auth_token, connection)
    assert await identity.revoke(caller, None) == issued.credential_id


async def test_agents_revoke_their_own_tokens_and_admins_any(identity: Identity) -> None:
    first, second = await authenticate(identity), await authenticate(identity)
    stranger = (await connect(identity, API_KEY, agent_id="stranger")).caller
    with pytest.raises(PermissionDenied) as raised:
        await identity.revoke(stranger, first.credential_id)
    assert raised.value.details == {"field": "jti"}
    own = (await connect(identity, token=second.token)).caller
    await identity.revoke(own, first.credential_id)
    assert await is_refused(identity, first.token)
    admin = (await connect(identity, ADMIN_API_KEY)).caller
    await identity.revoke(admin, second.credential_id)
    assert await is_refused(identity, second.token)


async def test_a_caller_is_current_until_the_credential_ends(
    identity: Identity, store: Store
) -> None:
    await identity.require_current((await connect(identity, API_KEY)).caller)
    issued = await authenticate(identity)
    caller = (await connect(identity, token=issued.token)).caller
    await identity.require_current(caller)
    await identity.revoke(caller, None)
    key, secret = await identity.keys.create("worker-7", ALL)
    bound = (await connect(identity, secret)).caller
    await identity.require_current(bound)
    await identity.keys.revoke(key.id)
    credential = await store.credentials.find(issued.credential_id)
    assert credential is not None
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = replace(credential, id="jti_expired", handle_hash="other", expires_at=past)
    await store.credentials.add(expired, AuditEntry("tested", "worker-7"))
    ended = replace(caller, credential_id="jti_expired")
    purged = replace(caller, credential_id="jti_purged")
    for former in (caller, bound, ended, purged):
        with pytest.raises(Unauthenticated):
            await identity.require_current(former)


async def test_what_is_no_token_cannot_be_revoked(identity: Identity) -> None:
    caller = (await connect(identity, API_KEY)).caller
    for token_id in (None, "", "unknown"):
        with pytest.raises(InvalidArgument) as raised:
            await identity.revoke(caller, token_id)
        assert raised.value.details == {"field": "jti"}


async def becomes_refused(identity: Identity, token: str) -> bool:
    """Whether another process refuses the token within the promised time."""
    with anyio.move_on_after(REVOCATION_S):
        while not await is_refused(identity, token):  # noqa: ASYNC110 - requests are all there is
            await anyio.sleep(0.02)
        return True
    return False


async def test_a_revoked_token_is_refused_in_every_process_within_a_second(
    identity: Identity, other: Identity
) -> None:
    issued, spared = await authenticate(identity), await authenticate(identity)
    assert not await is_refused(other, issued.token)
    await identity.revoke((await connect(identity, token=issued.token)).caller, None)
    assert await becomes_refused(other, issued.token)
    assert not await is_refused(other, spared.token)


async def test_a_revoked_keys_tokens_are_refused_in_every_process_within_a_second(
    identity: Identity, other: Identity
) -> None:
    record, key = await identity.keys.create("bound-1", [READ])
    issued = await authenticate(identity, "bound-1", api_key=key)
    connection = await connect(identity, key)
    assert not await is_refused(other, issued.token)
    assert await identity.keys.revoke(record.id)
    assert await is_refused(identity, issued.token)
    assert isinstance((await connect(identity, key)).refused, Unauthenticated)
    with pytest.raises(Unauthenticated, match="No valid API key"):
        await authenticate(identity, "bound-1", api_key=None, connection=connection)
    assert await becomes_refused(other, issued.token)


async def test_a_new_key_and_its_tokens_are_good_in_every_process_at_once(
    identity: Identity, other: Identity
) -> None:
    await connect(other, API_KEY)  # it has asked the store just now
    _, key = await identity.keys.create("bound-1", [READ])
    issued = await authenticate(identity, "bound-1", api_key=key)
    assert (await other.resolve(issued.token, Connection())).agent_id == "bound-1"
    _, second_key = await identity.keys.create("bound-2", [READ])
    assert (await connect(other, second_key)).caller.agent_id == "bound-2"
    assert (await authenticate(other, "bound-2", api_key=second_key)).agent_id == "bound-2"


async def test_a_created_key_that_is_configured_too_stays_bound(
    identity: Identity, store: Store, tmp_path: Path
) -> None:
    """As in a shell whose SCS_API_KEY is meant for clients, where a server is started."""
    _, key = await identity.keys.create("bound-1", [READ])
    started_there = Identity(store, make_settings(tmp_path, api_key=key))
    connection = await connect(started_there, key)
    assert connection.caller.agent_id == "bound-1"
    assert connection.caller.permissions == {READ}
    assert (await connect(started_there, key, agent_id="other")).refused is not None


async def test_many_callers_at_once_are_all_answered(identity: Identity, other: Identity) -> None:
    issued = await authenticate(identity)
    agents: list[str] = []

    async def ask() -> None:
        agents.append((await connect(other, token=issued.token)).caller.agent_id)

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(ask)
    assert agents == ["worker-7"] * 200


async def test_a_caller_that_gives_up_does_not_hold_up_the_others(
    identity: Identity, other: Identity
) -> None:
    issued = await authenticate(identity)
    async with anyio.create_task_group() as group:
        group.start_soon(connect, other, API_KEY)
        await anyio.lowlevel.checkpoint()  # it is asking the store
        group.cancel_scope.cancel()
    with anyio.fail_after(10):
        assert (await connect(other, token=issued.token)).caller.agent_id == "worker-7"


# Created keys


async def test_a_created_key_is_shown_once_and_kept_hashed(
    identity: Identity, store: Store
) -> None:
    record, key = await identity.keys.create("bound-1", [READ, WRITE])
    assert key.startswith("scs_")
    assert record.secret_hash == hash_key(key)
    assert await identity.keys.list_all() == [record]
    [entry] = await store.audit.list_newest(AuditQuery(limit=10, event_type="key_created"))
    assert key not in repr((record, entry))
    assert entry.details == {
        "key_id": record.id,
        "permissions": ["read", "write"],
        "agent_type": None,
        "expires_at": None,
    }


async def test_an_admin_key_may_read_and_write(identity: Identity) -> None:
    record, _ = await identity.keys.create("bound-1", [ADMIN])
    assert record.permissions == set(ALL)


async def test_a_key_needs_an_agent_and_a_permission(identity: Identity) -> None:
    with pytest.raises(InvalidArgument, match="permission"):
        await identity.keys.create("bound-1", [])
    with pytest.raises(InvalidArgument, match="agent_id"):
        await identity.keys.create("bound\n1", [READ])


async def test_keys_are_revoked_once(identity: Identity, store: Store) -> None:
    record, _ = await identity.keys.create("bound-1", [READ])
    assert await identity.keys.revoke(record.id)
    assert not await identity.keys.revoke(record.id)
    assert not await identity.keys.revoke("key_unknown")
    assert len(await store.audit.list_newest(AuditQuery(limit=10, event_type="key_revoked"))) == 1


async def test_configured_keys_stay_the_same_in_another_process(
    identity: Identity, store: Store, tmp_path: Path
) -> None:
    issued = await authenticate(identity)
    restarted = Identity(store, make_settings(tmp_path))
    connection = await connect(restarted, API_KEY)
    caller = await restarted.resolve(issued.agent_handle, connection)
    assert caller.key_id == connection.caller.key_id


# A key that is bound to a type


async def test_a_key_bound_to_a_type_is_of_that_type_and_no_other(identity: Identity) -> None:
    record, key = await identity.keys.create("bound-1", [READ, WRITE], agent_type="claude")
    assert record.agent_type == "claude"
    assert [found.agent_type for found in await identity.keys.list_all()] == ["claude"]
    for claimed in (None, "claude"):
        assert (await connect(identity, key, agent_type=claimed)).caller.agent_type == "claude"
    refused = (await connect(identity, key, agent_type="gpt")).refused
    assert isinstance(refused, PermissionDenied)
    assert refused.details["field"] == "X-Agent-Type"


async def test_authenticating_by_a_bound_key_takes_its_type_and_refuses_others(
    identity: Identity,
) -> None:
    _, key = await identity.keys.create("bound-1", [READ], agent_type="claude")

    async def issue(agent_type: str | None) -> IssuedToken:
        return await identity.authenticate(
            connection=Connection(),
            agent_id="bound-1",
            agent_type=agent_type,
            api_key=key,
            requested_permissions=ALL,
        )

    for claimed in (None, "claude"):
        issued = await issue(claimed)
        assert issued.agent_type == "claude"
        renewed = await identity.refresh(
            (await connect(identity, token=issued.token)).caller, Connection()
        )
        assert renewed.agent_type == "claude"
    with pytest.raises(PermissionDenied) as raised:
        await issue("generic")
    assert raised.value.details["field"] == "agent_type"


# Families of tokens


@pytest.mark.parametrize("revoked", [0, 1, 2])
async def test_revoking_one_token_ends_all_that_were_refreshed_from_one_another(
    identity: Identity, other: Identity, revoked: int
) -> None:
    connection = await connect(identity, API_KEY)
    issued, callers = [await authenticate(identity)], []
    for _ in range(3):
        callers.append((await connect(identity, token=issued[-1].token)).caller)
        issued.append(await identity.refresh(callers[-1], connection))
    spared = await authenticate(identity)
    assert not await is_refused(other, issued[-1].token)
    await identity.revoke(callers[revoked], None)
    for token in issued:
        assert await is_refused(identity, token.token)
        assert token.agent_handle is not None
        with pytest.raises(Unauthenticated):
            await identity.resolve(token.agent_handle, connection)
        assert await becomes_refused(other, token.token)
    for caller in callers:
        with pytest.raises(Unauthenticated):
            await identity.require_current(caller)
        with pytest.raises(Unauthenticated):
            await identity.refresh(caller, connection)
    assert not await is_refused(identity, spared.token)


async def test_revoking_a_key_ends_the_tokens_refreshed_from_its_tokens(identity: Identity) -> None:
    record, key = await identity.keys.create("bound-1", [READ])
    first = await authenticate(identity, "bound-1", api_key=key)
    second = await identity.refresh(
        (await connect(identity, token=first.token)).caller, Connection()
    )
    await identity.keys.revoke(record.id)
    assert await is_refused(identity, second.token)


# Handles


async def test_a_handle_is_given_only_where_it_opens_something(identity: Identity) -> None:
    with_key = await connect(identity, API_KEY)
    with_other_key = await connect(identity, ADMIN_API_KEY)
    assert (await authenticate(identity, connection=with_key)).agent_handle is not None
    for connection in (Connection(), with_other_key):
        issued = await authenticate(identity, api_key=API_KEY, connection=connection)
        assert issued.agent_handle is None
    by_token = await connect(identity, token=issued.token)
    assert (await identity.refresh(by_token.caller, by_token)).agent_handle is not None
    assert (await identity.refresh(by_token.caller, Connection())).agent_handle is None


# Names that no new agent may have

HIDDEN = "ali\u200bce"


async def test_misleading_names_are_refused_by_name_wherever_they_are_claimed(
    identity: Identity,
) -> None:
    for names, field in (
        ({"agent_id": HIDDEN}, "X-Agent-ID"),
        ({"agent_type": HIDDEN}, "X-Agent-Type"),
    ):
        refused = (await connect(identity, API_KEY, **names)).refused
        assert isinstance(refused, InvalidArgument)
        assert refused.details["field"] == field
    for call, field in (
        (authenticate(identity, HIDDEN), "agent_id"),
        (identity.keys.create(HIDDEN, ALL), "agent_id"),
        (identity.keys.create("alice", ALL, agent_type=HIDDEN), "agent_type"),
    ):
        with pytest.raises(InvalidArgument) as raised:
            await call
        assert raised.value.details["field"] == field


async def test_an_agent_that_exists_keeps_its_name_exactly(
    identity: Identity, store: Store
) -> None:
    now = datetime.now(UTC)
    await store.agents.touch([Agent(HIDDEN, "old\u200btype", now, now)])
    caller = (await connect(identity, API_KEY, agent_id=HIDDEN, agent_type="old\u200btype")).caller
    assert (caller.agent_id, caller.agent_type) == (HIDDEN, "old\u200btype")
    assert (await authenticate(identity, HIDDEN)).agent_id == HIDDEN
    assert (await connect(identity, API_KEY, agent_id=HIDDEN + "\u200b")).refused is not None
    assert (await connect(identity, API_KEY, agent_type=HIDDEN)).refused is not None
    key = ApiKey("key_old", "b\u200bob", frozenset(ALL), hash_key("a-key-of-old"), now)
    await store.credentials.add_key(key, AuditEntry("key_created", "b\u200bob"))
    assert (await connect(identity, "a-key-of-old")).caller.agent_id == "b\u200bob"
    named = await connect(identity, "a-key-of-old", agent_id="b\u200bob")
    assert named.caller.agent_id == "b\u200bob"
