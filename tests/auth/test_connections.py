"""What the headers of a request establish."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity
from shared_context_server.errors import (
    ConfigurationError,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
)
from shared_context_server.models import ANONYMOUS
from shared_context_server.storage import Store, open_storage
from tests.auth.conftest import (
    ADMIN,
    ALL,
    READ,
    WRITE,
    authenticate,
    connect,
)
from tests.settings import ADMIN_API_KEY, API_KEY, make_settings


async def test_without_credentials_a_caller_is_anonymous(identity: Identity) -> None:
    connection = await connect(identity, agent_id="worker-7")
    assert connection == Connection(address="192.0.2.7")


async def test_blank_headers_are_no_headers(identity: Identity) -> None:
    connection = await identity.authenticate_headers(
        authorization=" ", api_key="", agent_id="  ", agent_type="\t"
    )
    assert connection == Connection()


async def test_an_api_key_grants_read_and_write_to_whom_the_header_names(
    identity: Identity,
) -> None:
    connection = await connect(identity, API_KEY, agent_id="worker-7", agent_type="claude")
    assert connection.caller.agent_id == "worker-7"
    assert connection.caller.agent_type == "claude"
    assert connection.caller.permissions == {READ, WRITE}
    assert connection.caller.credential_id is None
    assert connection.is_named
    assert connection.grant is not None
    assert connection.grant.key_id == connection.caller.key_id


async def test_an_admin_key_grants_admin_too(identity: Identity) -> None:
    connection = await connect(identity, ADMIN_API_KEY)
    assert connection.caller.permissions == set(ALL)
    assert connection.caller.agent_id == "admin-api-key"
    assert not connection.is_named


async def test_an_unnamed_connection_takes_the_clients_name(identity: Identity) -> None:
    connection = await connect(identity, API_KEY)
    assert (connection.caller.agent_id, connection.caller.agent_type) == ("api-key", "generic")
    named = connection.with_client_name(" Claude\nCode ")
    assert named.caller.agent_id == "Claude Code"
    assert named.with_client_name("another").caller.agent_id == "Claude Code"
    assert connection.with_client_name(None) is connection
    assert connection.with_client_name("\x00") is connection


async def test_a_clients_name_never_replaces_a_named_agent(identity: Identity) -> None:
    _, bound_key = await identity.keys.create("bound-1", [READ])
    issued = await authenticate(identity)
    for connection in (
        await connect(identity, API_KEY, agent_id="worker-7"),
        await connect(identity, bound_key),
        await connect(identity, token=issued.token),
        Connection(),
    ):
        assert connection.with_client_name("client") is connection


@pytest.mark.parametrize("key", ["wrong", API_KEY[:-1], API_KEY + "x", API_KEY.upper(), "ключ"])
async def test_a_wrong_api_key_is_refused(identity: Identity, key: str) -> None:
    connection = await connect(identity, key, agent_id="worker-7")
    assert isinstance(connection.refused, Unauthenticated)
    assert connection.refused.details == {"field": "X-API-Key"}
    assert connection.caller is ANONYMOUS
    assert connection.grant is None


@pytest.mark.parametrize("header", ["X-Agent-ID", "X-Agent-Type"])
@pytest.mark.parametrize("name", ["x" * 129, "a\x00b", "a\nb"])
async def test_an_invalid_agent_header_is_refused(
    identity: Identity, header: str, name: str
) -> None:
    names = {"agent_id" if header == "X-Agent-ID" else "agent_type": name}
    connection = await connect(identity, API_KEY, **names)
    assert isinstance(connection.refused, InvalidArgument)
    assert connection.refused.details == {"field": header}
    assert connection.caller.is_anonymous


async def test_a_bound_key_names_its_agent_and_refuses_others(identity: Identity) -> None:
    _, key = await identity.keys.create("bound-1", [READ])
    own = await connect(identity, key)
    assert own.caller.agent_id == "bound-1"
    assert own.caller.permissions == {READ}
    assert own.is_named
    assert (await connect(identity, key, agent_id="bound-1")).caller == own.caller
    other = await connect(identity, key, agent_id="somebody-else")
    assert isinstance(other.refused, PermissionDenied)
    assert other.refused.details == {"field": "X-Agent-ID"}
    assert other.caller.is_anonymous


async def test_a_token_names_the_agent_and_wins_over_a_key(identity: Identity) -> None:
    issued = await authenticate(identity, "worker-7", requested=(READ,))
    connection = await connect(identity, ADMIN_API_KEY, token=issued.token, agent_id="somebody")
    assert connection.caller.agent_id == "worker-7"
    assert connection.caller.agent_type == "claude"
    assert connection.caller.permissions == {READ}
    assert connection.caller.credential_id == issued.credential_id
    assert connection.is_named


@pytest.mark.parametrize("authorization", ["  Bearer {} ", "bearer {}", "BEARER   {}"])
async def test_spaces_and_case_around_a_bearer_do_not_matter(
    identity: Identity, authorization: str
) -> None:
    issued = await authenticate(identity)
    connection = await identity.authenticate_headers(
        authorization=authorization.format(issued.token),
        api_key=None,
        agent_id=None,
        agent_type=None,
    )
    assert connection.caller.agent_id == "worker-7"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(authorization=st.text(min_size=1).filter(str.strip))
async def test_any_other_authorization_is_refused_and_not_repeated(
    identity: Identity, authorization: str
) -> None:
    for presented in (authorization, f"Bearer {authorization}", f"Basic {authorization}"):
        connection = await identity.authenticate_headers(
            authorization=presented, api_key=API_KEY, agent_id=None, agent_type=None
        )
        assert isinstance(connection.refused, Unauthenticated)
        assert connection.refused.details == {"field": "Authorization"}
        assert connection.refused.__traceback__ is None
        assert connection.caller.is_anonymous


async def test_a_bad_bearer_leaves_the_keys_grant_for_authenticate_agent(
    identity: Identity,
) -> None:
    connection = await connect(identity, API_KEY, token="a.b.c")
    assert connection.refused is not None
    issued = await authenticate(identity, api_key=None, connection=connection)
    assert issued.permissions == (READ, WRITE)


async def test_nothing_shows_a_credential(identity: Identity) -> None:
    issued = await authenticate(identity)
    assert issued.token not in repr(issued)
    assert issued.agent_handle not in repr(issued)
    for connection in (
        await connect(identity, API_KEY),
        await connect(identity, "wrong-key-0123456789"),
        await connect(identity, token=issued.token),
        await connect(identity, token=issued.token + "x"),
    ):
        shown = repr(connection)
        for secret in (API_KEY, "wrong-key-0123456789", issued.token, JWT_PART):
            assert secret not in shown


JWT_PART = "eyJ"  # how every token begins


async def test_rotating_the_api_key_ends_the_old_ones_tokens(
    identity: Identity, store: Store, tmp_path: Path
) -> None:
    issued = await authenticate(identity)
    rotated = Identity(store, make_settings(tmp_path, api_key="a-new-key-0123456789"))
    connection = await connect(rotated, token=issued.token)
    assert isinstance(connection.refused, Unauthenticated)


async def test_a_demoted_key_takes_its_tokens_along(
    identity: Identity, store: Store, tmp_path: Path
) -> None:
    issued = await authenticate(identity, api_key=ADMIN_API_KEY)
    assert ADMIN in issued.permissions
    demoted = make_settings(tmp_path, api_key=ADMIN_API_KEY, admin_api_key="a-new-key-0123456789")
    connection = await connect(Identity(store, demoted), token=issued.token)
    assert connection.caller.permissions == {READ, WRITE}


async def test_a_server_without_a_token_secret_does_not_start(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="JWT_SECRET_KEY"):
        Identity(store, make_settings(tmp_path, jwt_secret_key=None))


async def test_without_auth_everyone_is_who_they_say(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, auth_enabled=False)
    async with open_storage(settings) as store:
        identity = Identity(store, settings)
        nobody = await connect(identity)
        assert nobody.caller.agent_id == "anonymous-agent"
        assert nobody.caller.key_id == "auth-disabled"
        assert nobody.caller.permissions == {READ, WRITE}
        assert nobody.with_client_name("claude-code").caller.agent_id == "claude-code"
        assert (await connect(identity, agent_id="worker-7")).caller.agent_id == "worker-7"
        assert (await connect(identity, "wrong-key")).caller == nobody.caller
        assert (await connect(identity, ADMIN_API_KEY)).caller.is_admin
        _, key = await identity.keys.create("bound-1", [READ])
        assert (await connect(identity, key)).caller.agent_id == "bound-1"
        assert (await connect(identity, agent_id="a\nb")).refused is not None


async def test_without_auth_tokens_and_handles_still_work(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, auth_enabled=False)
    async with open_storage(settings) as store:
        identity = Identity(store, settings)
        nobody = await connect(identity)
        issued = await authenticate(identity, api_key=None, connection=nobody)
        assert issued.permissions == (READ, WRITE)
        assert (await connect(identity, token=issued.token)).caller.agent_id == "worker-7"
        assert (await connect(identity, token="a.b.c")).refused is not None
        somebody = await connect(identity, agent_id="somebody")
        assert issued.agent_handle is not None
        assert (await identity.resolve(issued.agent_handle, somebody)).agent_id == "worker-7"


async def test_without_auth_admin_takes_a_key_by_header_and_in_authenticate_agent(
    tmp_path: Path,
) -> None:
    settings = make_settings(tmp_path, auth_enabled=False)
    async with open_storage(settings) as store:
        identity = Identity(store, settings)
        _, reader = await identity.keys.create("bound-1", [READ])
        for key, permissions in (
            (None, (READ, WRITE)),
            ("wrong-key", (READ, WRITE)),
            (reader, (READ, WRITE)),
            (ADMIN_API_KEY, ALL),
        ):
            by_header = await connect(identity, key, agent_id="worker-7")
            assert by_header.caller.permissions == set(permissions)
            for connection, argument in ((by_header, None), (await connect(identity), key)):
                issued = await authenticate(identity, api_key=argument, connection=connection)
                assert issued.permissions == permissions
                caller = (await connect(identity, token=issued.token)).caller
                assert (caller.agent_id, caller.permissions) == ("worker-7", set(permissions))


async def test_tokens_of_a_server_without_auth_end_when_it_is_turned_on(
    tmp_path: Path, identity: Identity, store: Store
) -> None:
    open_server = Identity(store, make_settings(tmp_path, auth_enabled=False))
    issued = await authenticate(open_server, api_key=None)
    assert isinstance((await connect(identity, token=issued.token)).refused, Unauthenticated)
