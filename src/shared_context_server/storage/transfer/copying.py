"""The contract of copies: read all rows of a store in order, and write rows to another.

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
    """A record is not what its kind demands, or the store cannot keep it."""


class RowReader(Protocol):
    """Reads rows; of what belongs to a session that is being deleted there are none."""

    async def read_rows(
        self, kind: RecordKind, *, after: Key | None = None, up_to: Key | None = None, limit: int
    ) -> list[Row]:
        """Rows with `after < key <= up_to`, by key as Python orders keys, whatever the collation of
        the database; None does not bound. At most `limit`, and fewer where they are large, but none
        only if there are none. COUNTER has a row for each of NUMBERED_TABLES, always.
        """
        ...

    async def count_rows(self, kind: RecordKind) -> int:
        """How many read_rows has in all."""
        ...


class Copier(RowReader, Protocol):
    """A store that is copied from or to. Its methods are called one at a time.

    Raises Unavailable where the store does not answer.
    """

    @property
    def can_store_nul(self) -> bool:
        """Whether U+0000 may stand in text; if not, write_rows is given none."""
        ...

    def open_snapshot(self) -> AbstractAsyncContextManager[RowReader]:
        """All that is read through it is the store at one moment. Writers are not held up."""
        ...

    async def get_position(self) -> str:
        """A text that is another one after anything that a snapshot shows was written by somebody
        else. To be compared with other answers of this copier only.
        """
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
