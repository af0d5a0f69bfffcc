"""The commit watermark: how far ids can be read without missing one that is committed later.

A sequence gives out ids before their transactions commit, so a reader that meets ids 5 and 7 cannot
tell whether 6 is about to come or was rolled back. It can tell once every transaction that might
have taken 6 has ended. Such a transaction holds a lock on the table, from before it asked the
sequence to its end, and every transaction's locks can be listed. So without a gap nothing has to be
asked, and with one the reader waits for those who hold that lock now, and for nobody else: neither
for later ones, nor for long transactions that do something else.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from shared_context_server.errors import Unavailable
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement

Table = Literal["messages", "changes"]

# How long a reader waits for writers of a moment ago, ms apart: their commits take some.
_PAUSES_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)

_LAST_GIVEN: dict[Table, Statement] = {
    "messages": Statement(
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM messages_id_seq"
    ),
    "changes": Statement(
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM changes_id_seq"
    ),
}
_LIST_WRITERS = Statement("""
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND relation = :table::text::regclass
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND mode = 'RowExclusiveLock' AND granted""")


async def read_last_given(connection: Connection, table: Table) -> int:
    """The newest id that the table's sequence has given out, committed or not; 0 if none."""
    last: int = await connection.fetchval(*_LAST_GIVEN[table]())
    return last


async def have_writers_ended(connection: Connection, table: Table) -> bool:
    """Wait until all who are writing to the table now have ended, which makes every id given out so
    far either visible or void; False if that takes too long."""
    writers = await _list_writers(connection, table)
    for pause_s in _PAUSES_S:
        if not writers:
            return True
        await asyncio.sleep(pause_s)
        writers &= await _list_writers(connection, table)
    return not writers


async def read_end(connection: Connection, table: Table) -> int:
    """An id that is behind everything committed so far, and before everything committed later.
    Raises Unavailable if a transaction that began before does not end."""
    last = await read_last_given(connection, table)
    if not await have_writers_ended(connection, table):
        raise Unavailable("A transaction has been open for too long.")
    return last


async def _list_writers(connection: Connection, table: Table) -> set[str]:
    return {row[0] for row in await connection.fetch(*_LIST_WRITERS(table=table))}


def count_gapless(ids: list[int], after_id: int) -> int:
    """How many of `ids`, which ascend, follow `after_id` without a gap."""
    if ids and ids[-1] == after_id + len(ids):
        return len(ids)
    for count, id_ in enumerate(ids):
        if id_ != after_id + count + 1:
            return count
    return len(ids)
