"""Load numbered SQL migrations and find those that a database lacks; each store applies its own.

A file is a series of statements that may run in a transaction. Once released it never changes: its
checksum is kept in every database it was applied to.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared_context_server.errors import ConfigurationError

COLUMNS = frozenset({"number", "name", "checksum", "applied_at"})
"""Of the table schema_migrations, by which a database is known to be ours: other programs have
tables of that name, with other columns."""

_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")

Applied = tuple[int, str, str]
"""Number, name and checksum of a migration that a database was made with."""


@dataclass(frozen=True, slots=True)
class Migration:
    """`checksum` is the SHA-256 of the text, in hex."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Numbers of the newest migration applied (0: none) and of the newest one there is."""

    current: int
    latest: int


def load_migrations(directory: Path) -> list[Migration]:
    """The migrations of a directory by number. Raises ConfigurationError for a gap."""
    migrations: list[Migration] = []
    for path in sorted(directory.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None or int(match[1]) != len(migrations) + 1:
            raise ConfigurationError(f"Migration {path.name} is not number {len(migrations) + 1}.")
        # Universal newlines: a checkout with CRLF has the same checksum.
        sql = path.read_text(encoding="utf-8")
        migrations.append(Migration(number=int(match[1]), name=path.stem, sql=sql))
    return migrations


def is_ours(migration_columns: Collection[str], *, has_others: bool, where: str) -> bool:
    """Whether a database has been migrated by us; False if it is empty.

    `migration_columns`: of its table schema_migrations, none if it has no such table. `has_others`:
    whether there are tables beside that. Tables of others beside ours are no harm. Raises
    ConfigurationError, which names `where`, for a database that holds somebody else's tables.
    """
    if set(migration_columns) >= COLUMNS:
        return True
    if migration_columns or has_others:
        raise ConfigurationError(
            f"{where} has tables of another program and is left as it is: name an empty one, or one "
            "that this program has made."
        )
    return False


def find_missing(applied: Sequence[Applied], migrations: Sequence[Migration]) -> list[Migration]:
    """Those that a database lacks. Raises ConfigurationError if one that it was made with has been
    changed, or if its schema is newer than this program."""
    if len(applied) > len(migrations):
        number, name, _ = applied[-1]
        raise ConfigurationError(
            f"The database has schema {number} ({name}), this program knows "
            f"{len(migrations)}: start a newer version of the program, or restore an older backup."
        )
    for migration, (_, name, checksum) in zip(migrations, applied, strict=False):
        if (migration.name, migration.checksum) != (name, checksum):
            raise ConfigurationError(
                f"Migration {migration.name} is not the one this database was made with "
                f"({name}, sha256 {checksum[:12]}…): applied migrations must not change."
            )
    return list(migrations[len(applied) :])
