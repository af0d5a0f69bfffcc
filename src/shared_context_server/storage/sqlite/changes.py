"""The change stream on SQLite: events of all processes, in the order of the commits.

New messages are found by their ids, which grow with each commit. Triggers write every other change
to the table `changes`, in the transaction that makes it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from shared_context_server.models import Event, EventKind
from shared_context_server.storage.contract import Anchor, ChangePosition, Changes, WakeupChannel
from shared_context_server.storage.sqlite.engine.wakeup_sockets import WakeupSockets
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes

KEPT_CHANGES = 10_000  # rows: minutes of a busy server; a reader further behind has to resync

# From sqlite_sequence, which keeps the last id of a table that has been emptied.
_POSITION = """
    SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0),
           coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0)"""
_NEWEST = """
    SELECT id, session_id, created_at FROM messages WHERE id = (SELECT max(id) FROM messages)"""
_ANCHOR = "SELECT id, session_id, created_at FROM messages WHERE id = ?"
# Whether a session's messages may be missing because it was deleted, by a change still kept, or because
# they have expired.
_IS_REMOVED = """
    SELECT EXISTS (
        SELECT 1 FROM changes WHERE session_id = :session_id AND kind = 'session_deleted'
    ) OR EXISTS (SELECT 1 FROM sessions WHERE id = :session_id AND removed_id >= :message_id)"""
_MESSAGES = "SELECT id, session_id, seq, created_at FROM messages WHERE id > ? ORDER BY id LIMIT ?"
_CHANGES = """
    SELECT id, kind, session_id, name, owner, agent_id, seq FROM changes
    WHERE id > ? ORDER BY id LIMIT ?"""
_ADD = """
    INSERT INTO changes (kind, session_id, name, owner, agent_id)
    VALUES (:kind, :session_id, :name, :owner, :agent_id)"""


class ChangeStream(Subject):
    """The change stream. See contract/changes.py."""

    @reads
    def read(self, connection: sqlite3.Connection, after: ChangePosition, limit: int) -> Changes:
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
            # Ids missing up to the end were deleted with their session or have expired, which has its
            # own change.
            last_message = rows[-1][0] if len(rows) == limit else end_message
        if end_change > last_change:
            rows = connection.execute(_CHANGES, (last_change, limit)).fetchall()
            is_complete = bool(rows) and rows[0][0] == last_change + 1
            events += [
                Event(
                    EventKind(row[1]),
                    row[2],
                    name=row[3],
                    owner=row[4],
                    agent_id=row[5],
                    seq=row[6],
                )
                for row in rows
            ]
            last_change = rows[-1][0] if len(rows) == limit else end_change
        return Changes(events, ChangePosition(last_message, last_change, anchor), is_complete)

    @writes
    def _add(self, connection: sqlite3.Connection, events: Sequence[Event]) -> None:
        """Store events of things that are not stored otherwise, so that no trigger sees them."""
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

    def open_wakeup_channel(self, on_wakeup: Callable[[], None]) -> WakeupChannel:
        channel = WakeupSockets(self.engine.socket_dir, on_wakeup)
        self.engine.wakeup_channels.append(channel)
        return channel

    @reads
    def get_position(self, connection: sqlite3.Connection) -> ChangePosition:
        return read_position(connection)

    async def add(self, events: Sequence[Event]) -> None:
        if events:
            await self._add(events)


def read_position(connection: sqlite3.Connection) -> ChangePosition:
    messages, changes = connection.execute(_POSITION).fetchone()
    newest = connection.execute(_NEWEST).fetchone()
    return ChangePosition(messages, changes, None if newest is None else Anchor(*newest))


def _is_continued(
    connection: sqlite3.Connection, after: ChangePosition, end_message: int, end_change: int
) -> bool:
    """Whether the store still has the history in which the position was taken."""
    if end_message < after.message_id or end_change < after.change_id:
        return False
    anchor = after.anchor
    if anchor is None:
        return True
    row = connection.execute(_ANCHOR, (anchor.message_id,)).fetchone()
    if row is not None:
        return Anchor(*row) == anchor
    parameters = {"session_id": anchor.session_id, "message_id": anchor.message_id}
    (is_removed,) = connection.execute(_IS_REMOVED, parameters).fetchone()
    return bool(is_removed)
