"""Identities on a real store, and the headers that speak to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity, IssuedToken
from shared_context_server.models import Permission
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from tests.settings import API_KEY, make_settings

ALL = tuple(Permission)
READ, WRITE, ADMIN = ALL


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with open_storage(settings) as store:
        yield store


@pytest.fixture
def identity(store: Store, settings: Settings) -> Identity:
    return Identity(store, settings)


async def connect(
    identity: Identity,
    api_key: str | None = None,
    *,
    token: str | None = None,
    agent_id: str | None = None,
    agent_type: str | None = None,
) -> Connection:
    return await identity.authenticate_headers(
        authorization=None if token is None else f"Bearer {token}",
        api_key=api_key,
        agent_id=agent_id,
        agent_type=agent_type,
        address="192.0.2.7",
    )


async def authenticate(
    identity: Identity,
    agent_id: str = "worker-7",
    *,
    api_key: str | None = API_KEY,
    connection: Connection | None = None,
    requested: tuple[Permission, ...] = ALL,
) -> IssuedToken:
    if connection is None:
        connection = await connect(identity, api_key) if api_key else Connection()
    return await identity.authenticate(
        connection=connection,
        agent_id=agent_id,
        agent_type="claude",
        api_key=api_key,
        requested_permissions=requested,
    )
