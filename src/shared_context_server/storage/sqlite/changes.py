"""The change stream, called the tail: what any process has committed, in the order of the commits.

Messages are found by their own ids, which grow with each commit and cost nothing more. All else is
in `changes`, where triggers put it in the transaction that made it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from shared_context_server.models import Event, EventKind
from shared_context_server.storage.contract import Anchor, Bell, Changes, TailPosition
from shared_context_server.storage.sqlite.engine.doorbells import Doorbells
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes

KEPT_CHANGES = 10_000  # rows: minutes of a busy server; whoever is further behind has to look

# From sqlite_sequence, for which a table that has been emptied is none that begins anew.
_POSITION = """
    SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0),
           coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0)"""
_NEWEST = """
    SELECT id, session_id, created_at FROM messages WHERE id = (SELECT max(id) FROM messages)"""
_ANCHOR = "SELECT id, session_id, created_at FROM messages WHERE id = ?"
# Whether messages of a session may be missing: it is deleted, by a change that is still told of.
_IS_DELETED = """
    SELECT EXISTS (SELECT 1 FROM changes WHERE session_id = ? AND kind = 'session_deleted')"""
_MESSAGES = "SELECT id, session_id, seq, created_at FROM messages WHERE id > ? ORDER BY id LIMIT ?"
_CHANGES = """
    SELECT id, kind, session_id, name, owner, agent_id FROM changes
    WHERE id > ? ORDER BY id LIMIT ?"""
_ADD = """
    INSERT INTO changes (kind, session_id, name, owner, agent_id)
    VALUES (:kind, :session_id, :name, :owner, :agent_id)"""


class ChangeStream(Subject):
    """The tail. See contract/changes.py."""

    @reads
    def read(self, connection: sqlite3.Connection, after: TailPosition, limit: int) -> Changes:
        last_message, last_change, anchor = after.message_id, after.change_id, after.anchor
        end_message, end_change = connection.execute(_POSITION).fetchone()
        if not _is_continued(connection, after, end_message, end_change):
            position = read_position(connection)
            return Changes([], position, is_complete=False, is_set_back=True)
        events: list[Event] = []
        is_complete = True
        if end_message > last_message:
            rows = connection.execute(_MESSAGES, (last_message, limit)).fetchall()
            events += [Event(EventKind.MESSAGE_ADDED, row[1], seq=row[2]) for row in rows]
            if rows:
                anchor = Anchor(rows[-1][0], rows[-1][1], rows[-1][3])
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
        return Changes(events, TailPosition(last_message, last_change, anchor), is_complete)

    @writes
    def _add(self, connection: sqlite3.Connection, events: Sequence[Event]) -> None:
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

    def open_bell(self, on_ring: Callable[[], None]) -> Bell:
        bell = Doorbells(self.engine.meeting_dir, on_ring)
        self.engine.bells.append(bell)
        return bell

    @reads
    def get_position(self, connection: sqlite3.Connection) -> TailPosition:
        return read_position(connection)

    async def add(self, events: Sequence[Event]) -> None:
        if events:
            await self._add(events)


def read_position(connection: sqlite3.Connection) -> TailPosition:
    messages, changes = connection.execute(_POSITION).fetchone()
    newest = connection.execute(_NEWEST).fetchone()
    return TailPosition(messages, changes, None if newest is None else Anchor(*newest))


def _is_continued(
    connection: sqlite3.Connection, after: TailPosition, end_message: int, end_change: int
) -> bool:
    """Whether this is a later state of the store in which the position was taken."""
    if end_message < after.message_id or end_change < after.change_id:
        return False
    anchor = after.anchor
    if anchor is None:
        return True
    row = connection.execute(_ANCHOR, (anchor.message_id,)).fetchone()
    if row is not None:
        return Anchor(*row) == anchor
    (is_deleted,) = connection.execute(_IS_DELETED, (anchor.session_id,)).fetchone()
    return bool(is_deleted)
