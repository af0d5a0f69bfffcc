"""The tail: what was committed, by any process, each session's messages by seq.

Messages are found by their own ids. All else is in `changes`, where triggers put it in the
transaction that made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared_context_server.models import Event, EventKind
from shared_context_server.storage.base import Changes, TailPosition
from shared_context_server.storage.postgres.feed import read_end
from shared_context_server.storage.postgres.horizon import (
    Table,
    count_gapless,
    have_writers_ended,
)
from shared_context_server.storage.postgres.pool import Connection
from shared_context_server.storage.rows import Row

KEPT_CHANGES = 10_000  # rows: minutes of a busy server; whoever is further behind has to look

_MESSAGES = "SELECT id, session_id, seq FROM messages WHERE id > $1 ORDER BY id LIMIT $2"
_CHANGES = """
    SELECT id, kind, session_id, name, owner, agent_id FROM changes
    WHERE id > $1 ORDER BY id LIMIT $2"""
_MESSAGES_UP_TO = "SELECT id, session_id, seq FROM messages WHERE id > $1 AND id <= $2 ORDER BY id"
_CHANGES_UP_TO = """
    SELECT id, kind, session_id, name, owner, agent_id FROM changes
    WHERE id > $1 AND id <= $2 ORDER BY id"""
_OLDEST_CHANGE = "SELECT min(id) FROM changes"
_ADD = """
    INSERT INTO changes (kind, session_id, name, owner, agent_id)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])"""


async def read_position(connection: Connection) -> TailPosition:
    return (await read_end(connection, "messages"), await read_end(connection, "changes"))


async def read_changes(connection: Connection, after: TailPosition, limit: int) -> Changes:
    after_message, after_change = after
    messages = await _read_settled(
        connection, "messages", _MESSAGES, _MESSAGES_UP_TO, after_message, limit
    )
    changes = await _read_settled(
        connection, "changes", _CHANGES, _CHANGES_UP_TO, after_change, limit
    )
    is_complete = True
    if changes and changes[0][0] != after_change + 1:
        # Either nothing was ever committed under the ids between, or it is not kept any more.
        is_complete = await connection.fetchval(_OLDEST_CHANGE) <= after_change
    events = [Event(EventKind.MESSAGE_ADDED, row[1], seq=row[2]) for row in messages]
    events += [
        Event(EventKind(row[1]), row[2], name=row[3], owner=row[4], agent_id=row[5])
        for row in changes
    ]
    position = (
        messages[-1][0] if messages else after_message,
        changes[-1][0] if changes else after_change,
    )
    return Changes(events, position, is_complete)


async def _read_settled(
    connection: Connection, table: Table, read: str, read_up_to: str, after_id: int, limit: int
) -> Sequence[Row]:
    """The oldest rows behind an id, up to one behind which nothing older can come."""
    rows: Sequence[Any] = await connection.fetch(read, after_id, limit)
    gapless = count_gapless([row[0] for row in rows], after_id)
    if gapless == len(rows):
        return rows
    if await have_writers_ended(connection, table):
        return await connection.fetch(read_up_to, after_id, rows[-1][0])
    return rows[:gapless]


async def add_changes(connection: Connection, events: Sequence[Event]) -> None:
    """For what no trigger sees: nothing is stored but the event."""
    await connection.execute(
        _ADD,
        [event.kind.value for event in events],
        [event.session_id for event in events],
        [event.name for event in events],
        [event.owner for event in events],
        [event.agent_id for event in events],
    )
