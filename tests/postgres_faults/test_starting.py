"""Servers that start before their database, or without one."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage import open_storage, postgres
from tests.postgres_faults.replicas import (
    DATABASE,
    PASSWORD,
    PATIENCE_S,
    ROLE,
    Replicas,
    call,
    check_server_log,
    client_of,
)


async def test_a_server_that_starts_before_its_database_waits_for_it(replicas: Replicas) -> None:
    await asyncio.to_thread(replicas.cluster.stop)
    server = replicas.start()
    try:
        await asyncio.to_thread(server.wait_for, "the database does not answer yet")
        await asyncio.to_thread(replicas.cluster.start)
        found = await asyncio.to_thread(server.wait_for, r"(http://[^/\s\"]+)/health")
        server.url = found[1]
        async with client_of(server) as client:
            await call(client, "list_sessions")
    finally:
        server.kill()
    check_server_log(server.stderr)


@pytest.mark.parametrize(
    "wrong, wait_s",
    [
        ("@127.0.0.1:1/", 1.0),  # nobody is there: that may pass
        ("@127.0.0.1:{port}/no_such_database", math.inf),
        ("@127.0.0.1:{port}/shared_context?target_session_attrs=nonsense", math.inf),
        ("@127.0.0.1:{port}/shared_context?sslmode=nonsense", math.inf),
        ("/@127.0.0.1:{port}/shared_context", math.inf),
        ("@127.0.0.1:99999/shared_context", math.inf),
    ],
)
async def test_a_server_without_its_database_says_so_and_not_the_password(
    replicas: Replicas,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wrong: str,
    wait_s: float,
) -> None:
    monkeypatch.setattr(postgres, "START_WAIT_S", wait_s)
    url = f"postgresql://scs:{PASSWORD}{wrong.format(port=replicas.cluster.port)}"
    with pytest.raises(ConfigurationError) as raised:
        async with (
            asyncio.timeout(PATIENCE_S),
            open_storage(Settings(data_dir=tmp_path, database_url=url)),
        ):
            pass
    assert str(raised.value).startswith("DATABASE_URL")
    assert PASSWORD not in str(raised.value)
    # However often it was tried: one line, until a minute has passed.
    assert caplog.text.count("the database does not answer yet") <= 1


async def test_a_server_whose_role_may_not_write_says_so(
    replicas: Replicas, tmp_path: Path
) -> None:
    replicas.cluster.execute(f"REVOKE INSERT ON messages FROM {ROLE}", database=DATABASE)
    try:
        with pytest.raises(
            ConfigurationError, match=r"^DATABASE_URL: .* may not write to the table"
        ):
            async with open_storage(Settings(data_dir=tmp_path, database_url=replicas.url)):
                pass
    finally:
        replicas.cluster.execute(f"GRANT INSERT ON messages TO {ROLE}", database=DATABASE)
