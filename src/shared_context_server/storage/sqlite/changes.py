"""The tail: what was committed, by any process, in the order of the commits.

Messages are found by their own ids, which grow with each commit and cost nothing more. All else is
in `changes`, where triggers put it in the transaction that made it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from shared_context_server.models import Event, EventKind
from shared_context_server.storage.base import Changes, TailPosition

KEPT_CHANGES = 10_000  # rows: minutes of a busy server; whoever is further behind has to look

# From sqlite_sequence, for which a table that has been emptied is none that begins anew.
_POSITION = """
    SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0),
           coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0)"""
_MESSAGES = "SELECT id, session_id, seq FROM messages WHERE id > ? ORDER BY id LIMIT ?"
_CHANGES = """
    SELECT id, kind, session_id, name, owner, agent_id FROM changes
    WHERE id > ? ORDER BY id LIMIT ?"""
_ADD = """
    INSERT INTO changes (kind, session_id, name, owner, agent_id)
    VALUES (:kind, :session_id, :name, :owner, :agent_id)"""


def read_position(connection: sqlite3.Connection) -> TailPosition:
    messages, changes = connection.execute(_POSITION).fetchone()
    return (messages, changes)


def read_changes(connection: sqlite3.Connection, after: TailPosition, limit: int) -> Changes:
    last_message, last_change = after
    end_message, end_change = read_position(connection)
    events: list[Event] = []
    is_complete = True
    if end_message > last_message:
        rows = connection.execute(_MESSAGES, (last_message, limit)).fetchall()
        events += [Event(EventKind.MESSAGE_ADDED, row[1], seq=row[2]) for row in rows]
        # What is missing up to the end has gone with its session, which is a change of its own.
        last_message = rows[-1][0] if len(rows) == limit else end_message
    if end_change > last_change:
        rows = connection.execute(_CHANGES, (last_change, limit)).fetchall()
        is_complete = bool(rows) and rows[0][0] == last_change + 1
        events += [
            Event(EventKind(row[1]), row[2], name=row[3], owner=row[4], agent_id=row[5])
            for row in rows
        ]
        last_change = rows[-1][0] if len(rows) == limit else end_change
    return Changes(events, (last_message, last_change), is_complete)


def add_changes(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    """For what no trigger sees: nothing is stored but the event."""
    connection.executemany(
        _ADD,
        [
            {
                "kind": event.kind.value,
                "session_id": event.session_id,
                "name": event.name,
                "owner": event.owner,
                "agent_id": event.agent_id,
            }
            for event in events
        ],
    )
