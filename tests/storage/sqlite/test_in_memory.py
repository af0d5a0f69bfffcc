"""`sqlite:///:memory:`: a store that lives and ends with the process that opened it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import IN_MEMORY_URL, Settings
from shared_context_server.storage import (
    back_up_storage,
    find_schema_status,
    identify_storage,
    migrate_storage,
    open_copier,
    open_storage,
    restore_storage,
)
from shared_context_server.storage.sqlite import in_memory
from tests.storage.builders import add_session

OPEN_AND_DIE = """
import os
from pathlib import Path
from shared_context_server.storage.sqlite import in_memory
in_memory._find_base = lambda: Path({base!r})
with in_memory.open_private_directory() as path:
    (path / "shared_context.db").touch()
    os._exit(9)
"""


@pytest.fixture
def in_memory_settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=IN_MEMORY_URL)


async def test_two_stores_share_nothing_and_leave_nothing(
    in_memory_settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(in_memory, "_find_base", lambda: tmp_path)
    async with open_storage(in_memory_settings) as store, open_storage(in_memory_settings) as other:
        session = await add_session(store)
        assert (await store.sessions.get(session.id)).id == session.id
        assert (
            await other.maintenance.get_stats(active_since=session.created_at)
        ).active_sessions == 0
        assert (
            len([path for path in tmp_path.iterdir() if path.stat().st_mode & 0o777 == 0o700]) == 2
        )
        assert identify_storage(in_memory_settings) is None
    assert list(tmp_path.iterdir()) == []


async def test_the_directory_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(in_memory, "_find_base", lambda: tmp_path)
    with in_memory.open_private_directory() as living:
        code = OPEN_AND_DIE.format(base=str(tmp_path))
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
        assert len(list(tmp_path.iterdir())) == 2
        with in_memory.open_private_directory() as mine:
            assert set(tmp_path.iterdir()) == {living, mine}


async def test_what_another_process_would_do_with_it_is_refused(
    in_memory_settings: Settings, tmp_path: Path
) -> None:
    for refused in (
        lambda: back_up_storage(in_memory_settings, tmp_path / "copy.db", force=False),
        lambda: restore_storage(in_memory_settings, tmp_path / "copy.db"),
        lambda: migrate_storage(in_memory_settings),
        lambda: find_schema_status(in_memory_settings),
    ):
        with pytest.raises(ConfigurationError, match="no other command can reach"):
            refused()
    with pytest.raises(ConfigurationError, match="no other command can reach"):
        async with open_copier(in_memory_settings, read_only=False):
            pytest.fail("it was opened")


async def test_a_directory_that_cannot_be_made_is_a_configuration_error(
    in_memory_settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(in_memory, "_find_base", lambda: tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="needs a directory in"):
        async with open_storage(in_memory_settings):
            pytest.fail("it was opened")
