"""Where the database is, whose it is, and what SQLite is told about it."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings, Synchronous
from shared_context_server.storage.sqlite import migrate_sqlite, open_sqlite
from shared_context_server.storage.sqlite.engine.connections import database_path, open_connection
from tests.storage.builders import add_session


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_data_is_readable_by_its_owner_only(settings: Settings) -> None:
    async with open_sqlite(settings) as store:
        await add_session(store)
        assert mode_of(settings.data_dir) == 0o700
        files = {path.name: mode_of(path) for path in settings.data_dir.iterdir()}
    suffixes = ("", "-wal", "-shm", ".lock", ".opened")
    assert set(files) == {f"shared_context.db{suffix}" for suffix in suffixes}
    assert set(files.values()) == {0o600}


async def test_closing_folds_the_wal_into_the_database(settings: Settings) -> None:
    async with open_sqlite(settings) as store:
        await add_session(store)
        await store.maintenance.ping()
    assert not Path(f"{database_path(settings)}-wal").exists()


@pytest.mark.parametrize(
    "url, path",
    [
        ("sqlite:////srv/data/x.db", "/srv/data/x.db"),
        ("sqlite:///srv/data/x.db", "/srv/data/x.db"),
        ("sqlite:///./x.db", str(Path.cwd() / "x.db")),
        ("sqlite:///~/x.db", str(Path.home() / "x.db")),
        ("sqlite:////srv/with space%20/?#.db", "/srv/with space%20/?#.db"),
    ],
)
def test_a_url_names_a_file(settings: Settings, url: str, path: str) -> None:
    assert database_path(settings.model_copy(update={"database_url": url})) == Path(path)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:////", "sqlite:///:memory:", "sqlite:x.db"]
)
def test_a_url_without_a_file_is_refused(settings: Settings, url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        database_path(settings.model_copy(update={"database_url": url}))


async def test_a_path_of_any_characters_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "with space%20" / "?#&=é.db"
    settings = Settings(database_url=f"sqlite:///{path}")
    async with open_sqlite(settings) as store:
        await add_session(store)
    assert path.is_file()
    known = (".db", ".lock", ".opened")
    assert not [other for other in path.parent.iterdir() if other.suffix not in known]


async def test_a_file_that_is_no_database_is_refused(settings: Settings) -> None:
    settings.data_dir.mkdir()
    database_path(settings).write_text("Dear diary, " * 1000)
    with pytest.raises(ConfigurationError, match=r"shared_context\.db"):
        async with open_sqlite(settings):
            pass
    assert database_path(settings).read_text().startswith("Dear diary")


async def test_a_directory_that_cannot_be_made_is_refused(settings: Settings) -> None:
    settings.data_dir.write_text("a file in its place")
    with pytest.raises(ConfigurationError, match="cannot be created"):
        async with open_sqlite(settings):
            pass


def test_a_vanished_database_is_an_error_and_not_a_new_one(settings: Settings) -> None:
    migrate_sqlite(settings)
    path = database_path(settings)
    path.unlink()
    with pytest.raises(sqlite3.OperationalError):
        open_connection(path, settings, query_only=False)
    assert not path.exists()


@pytest.mark.parametrize("query_only", [False, True])
def test_connections_are_set_up_as_the_settings_say(settings: Settings, query_only: bool) -> None:
    chosen = settings.model_copy(
        update={
            "sqlite_synchronous": Synchronous.FULL,
            "sqlite_busy_timeout_ms": 1234,
            "sqlite_cache_mb": 3,
            "sqlite_mmap_mb": 5,
        }
    )
    migrate_sqlite(chosen)
    with closing(open_connection(database_path(chosen), chosen, query_only=query_only)) as opened:
        for name, value in {
            "journal_mode": "wal",
            "foreign_keys": 1,
            "synchronous": 2,
            "busy_timeout": 1234,
            "cache_size": -3 * 1024,
            "mmap_size": 5 * 1024 * 1024,
            "temp_store": 2,
            "secure_delete": 2,
            "query_only": int(query_only),
        }.items():
            assert opened.execute(f"PRAGMA {name}").fetchone() == (value,), name
        assert opened.isolation_level is None


def test_what_is_no_file_is_refused_and_keeps_its_rights(
    settings: Settings, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o666)
    with pytest.raises(ConfigurationError, match="not a file"):
        migrate_sqlite(settings.model_copy(update={"database_url": f"sqlite:///{pipe}"}))
    assert mode_of(pipe) == 0o666
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_home_of_nobody_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="no such user"):
        database_path(settings.model_copy(update={"database_url": "sqlite:///~nobody-at-all/x.db"}))
