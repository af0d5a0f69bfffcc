"""Load numbered SQL migrations, and find those that a database lacks. Each store applies its own.

A file is a series of statements that may run in a transaction. It never changes once released:
every database keeps the checksum of each applied file.
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
    """The numbers of the newest applied migration (0: none) and of the newest known one."""

    current: int
    latest: int


def load_migrations(directory: Path) -> list[Migration]:
    """Return the migrations of a directory by number. Raises ConfigurationError for a gap."""
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
    """Whether this program has migrated the database; False if it is empty.

    `migration_columns`: the columns of its table schema_migrations, if there is one. `has_others`:
    whether it has other tables. Foreign tables beside ours are allowed. Raises ConfigurationError,
    which names `where`, for a database with only foreign tables.
    """
    if set(migration_columns) >= COLUMNS:
        return True
    if migration_columns or has_others:
        raise ConfigurationError(
            f"{where} has tables of another program and was not changed: name an empty one, or one "
            "that this program made."
        )
    return False


def find_missing(applied: Sequence[Applied], migrations: Sequence[Migration]) -> list[Migration]:
    """Return the migrations that a database lacks. Raises ConfigurationError if an applied one has
    changed, or if the schema is newer than this program."""
    if len(applied) > len(migrations):
        number, name, _ = applied[-1]
        raise ConfigurationError(
            f"The database has schema {number} ({name}), this program knows "
            f"{len(migrations)}: start a newer version of the program, or restore an older backup."
        )
    for migration, (_, name, checksum) in zip(migrations, applied, strict=False):
        if (migration.name, migration.checksum) != (name, checksum):
            raise ConfigurationError(
                f"Migration {migration.name} differs from the one applied to this database "
                f"({name}, sha256 {checksum[:12]}…): applied migrations must not change."
            )
    return list(migrations[len(applied) :])
