"""The contract of copies: read all rows of a store in order, and write them to another store.

These docstrings are the contract every store is tested on. Rows, keys and kinds are those of
records.py; the lines and checksums made of them are the same whatever the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from shared_context_server.errors import CopyError
from shared_context_server.storage.codec import Row
from shared_context_server.storage.transfer.records import Key, RecordKind


class RecordRefused(CopyError):
    """A record does not fit its kind, or the store cannot keep it."""


class RowReader(Protocol):
    """Reads rows. It leaves out the rows of sessions that are being deleted."""

    async def read_rows(
        self, kind: RecordKind, *, after: Key | None = None, up_to: Key | None = None, limit: int
    ) -> list[Row]:
        """Return the rows with `after < key <= up_to` (None: no bound), by key as Python orders
        keys, whatever the collation of the database. Returns at most `limit`, fewer if rows are
        large, and none only if there are none. COUNTER always has a row for each of
        NUMBERED_TABLES."""
        ...

    async def count_rows(self, kind: RecordKind) -> int:
        """Return how many rows read_rows has in all."""
        ...


class Copier(RowReader, Protocol):
    """A store to copy from or to. Its methods are called one at a time.

    Raises Unavailable when the store does not answer.
    """

    @property
    def can_store_nul(self) -> bool:
        """Whether texts may contain U+0000. If not, write_rows gets none."""
        ...

    def open_snapshot(self) -> AbstractAsyncContextManager[RowReader]:
        """Open a snapshot: all reads through it see the store at one moment. Writers are not
        blocked."""
        ...

    def open_transaction(self) -> AbstractAsyncContextManager[None]:
        """Open a transaction for a with block. What this copier reads and writes in the block
        belongs to it: all of it is committed at the end, or nothing if the block raises. Other
        writers wait meanwhile. Numbers that counters were raised to may stay."""
        ...

    async def get_position(self) -> str:
        """Return a text that changes after another program has written anything that a snapshot
        shows. Compare it only with other results of this copier."""
        ...

    async def write_rows(
        self, kind: RecordKind, added: Sequence[Row], changed: Sequence[Row]
    ) -> None:
        """Insert the added rows and set those that are changed, whose keys are there: all in one
        transaction, which has survived a killed process once this returns. Ids stay as they are.

        What is derived from messages, and the changes that other processes are told of, come into
        being as with any write. Added ids are never given out again. A COUNTER comes as changed,
        and ids up to its last_id are not given out either. Servers of this store notice new and
        revoked keys and credentials as they always do.

        Raises RecordRefused, having written nothing: a row does not go with the others (its key is
        taken, it has no session, a value is not allowed); the message says which rows.
        """
        ...
