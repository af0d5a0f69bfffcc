"""The commit watermark: up to which id rows can be read without missing a later commit.

A sequence gives out ids before their transactions commit. So a reader that finds ids 5 and 7 cannot
tell whether 6 is still to be committed or was rolled back. It can once every transaction that may
have taken 6 has ended. Such a transaction holds a lock on the table from before it took the id
until its end, and PostgreSQL can list these locks. So without a gap nothing is asked. With a gap
the reader waits for the transactions that hold the lock now, and for no others: not for later ones,
and not for long transactions that do something else.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from shared_context_server.errors import Unavailable
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement

Table = Literal["messages", "changes"]

# The pauses between the checks whether the present writers have committed.
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
    """Return the newest id that the table's sequence has given out, committed or not; 0 if none."""
    last: int = await connection.fetchval(*_LAST_GIVEN[table]())
    return last


async def have_writers_ended(connection: Connection, table: Table) -> bool:
    """Wait until all present writers of the table have ended. Every id given out so far is then
    either visible or void. Return False if that takes too long."""
    writers = await _list_writers(connection, table)
    for pause_s in _PAUSES_S:
        if not writers:
            return True
        await asyncio.sleep(pause_s)
        writers &= await _list_writers(connection, table)
    return not writers


async def read_end(connection: Connection, table: Table) -> int:
    """Return an id that is after everything committed so far, and before everything committed
    later. Raises Unavailable if a transaction that began before does not end."""
    last = await read_last_given(connection, table)
    if not await have_writers_ended(connection, table):
        raise Unavailable("Another transaction has been writing for too long.")
    return last


async def _list_writers(connection: Connection, table: Table) -> set[str]:
    return {row[0] for row in await connection.fetch(*_LIST_WRITERS(table=table))}


def count_gapless(ids: list[int], after_id: int) -> int:
    """Return how many of `ids`, in ascending order, follow `after_id` without a gap."""
    if ids and ids[-1] == after_id + len(ids):
        return len(ids)
    for count, id_ in enumerate(ids):
        if id_ != after_id + count + 1:
            return count
    return len(ids)
