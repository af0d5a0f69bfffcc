"""The change stream on PostgreSQL: events of all processes, each session's messages by seq.

New messages are found by their ids. Triggers write every other change to the table `changes`, in the
transaction that makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shared_context_server.models import Event, EventKind
from shared_context_server.storage.codec import Row
from shared_context_server.storage.contract import Anchor, ChangePosition, Changes, WakeupChannel
from shared_context_server.storage.postgres.engine.commit_watermark import (
    Table,
    count_gapless,
    have_writers_ended,
    read_end,
    read_last_given,
)
from shared_context_server.storage.postgres.engine.notifications import NotifyChannel
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import Subject, reads, writes

KEPT_CHANGES = 10_000  # rows: minutes of a busy server; a reader further behind has to resync

_MESSAGES = Statement("""
    SELECT id, session_id, seq, created_at FROM messages WHERE id > :after_id ORDER BY id LIMIT :limit""")
_CHANGES = Statement("""
    SELECT id, kind, session_id, name, owner, agent_id, seq FROM changes
    WHERE id > :after_id ORDER BY id LIMIT :limit""")
_MESSAGES_UP_TO = Statement("""
    SELECT id, session_id, seq, created_at FROM messages
    WHERE id > :after_id AND id <= :up_to_id ORDER BY id""")
_CHANGES_UP_TO = Statement("""
    SELECT id, kind, session_id, name, owner, agent_id, seq FROM changes
    WHERE id > :after_id AND id <= :up_to_id ORDER BY id""")
_OLDEST_CHANGE = Statement("SELECT min(id) FROM changes")
_NEWEST = Statement(
    "SELECT id, session_id, created_at FROM messages WHERE id <= :up_to_id ORDER BY id DESC LIMIT 1"
)
_ANCHOR = Statement("SELECT id, session_id, created_at FROM messages WHERE id = :id")
# Whether a session's messages may be missing because it was deleted, by a change still kept, or because
# they have expired.
_IS_REMOVED = Statement("""
    SELECT EXISTS (
        SELECT 1 FROM changes WHERE session_id = :session_id AND kind = 'session_deleted'
    ) OR EXISTS (SELECT 1 FROM sessions WHERE id = :session_id AND removed_id >= :message_id)""")
_ADD = Statement("""
    INSERT INTO changes (kind, session_id, name, owner, agent_id)
    SELECT * FROM unnest(
        :kinds::text[], :session_ids::text[], :names::text[], :owners::text[], :agent_ids::text[])""")


async def read_position(connection: Connection) -> ChangePosition:
    message_id = await read_end(connection, "messages")
    change_id = await read_end(connection, "changes")
    newest = await connection.fetchrow(*_NEWEST(up_to_id=message_id))
    return ChangePosition(message_id, change_id, None if newest is None else Anchor(*newest))


class ChangeStream(Subject):
    """The change stream. See contract/changes.py."""

    @reads
    async def read(self, connection: Connection, after: ChangePosition, limit: int) -> Changes:
        if not await _is_continued(connection, after):
            position = await read_position(connection)
            return Changes([], position, is_complete=False, is_set_back=True)
        after_message, after_change = after.message_id, after.change_id
        messages = await _read_settled(
            connection, "messages", _MESSAGES, _MESSAGES_UP_TO, after_message, limit
        )
        changes = await _read_settled(
            connection, "changes", _CHANGES, _CHANGES_UP_TO, after_change, limit
        )
        is_complete = True
        if changes and changes[0][0] != after_change + 1:
            # The ids between were either never committed, or have been purged.
            is_complete = await connection.fetchval(*_OLDEST_CHANGE()) <= after_change
        events = [Event(EventKind.MESSAGE_ADDED, row[1], seq=row[2]) for row in messages]
        events += [
            Event(EventKind(row[1]), row[2], name=row[3], owner=row[4], agent_id=row[5], seq=row[6])
            for row in changes
        ]
        position = ChangePosition(
            messages[-1][0] if messages else after_message,
            changes[-1][0] if changes else after_change,
            Anchor(messages[-1][0], messages[-1][1], messages[-1][3]) if messages else after.anchor,
        )
        return Changes(events, position, is_complete)

    @writes
    async def _add(self, connection: Connection, events: Sequence[Event]) -> None:
        """Store events of things that are not stored otherwise, so that no trigger sees them."""
        await connection.execute(
            *_ADD(
                kinds=[event.kind.value for event in events],
                session_ids=[event.session_id for event in events],
                names=[event.name for event in events],
                owners=[event.owner for event in events],
                agent_ids=[event.agent_id for event in events],
            )
        )

    def open_wakeup_channel(self, on_wakeup: Callable[[], None]) -> WakeupChannel:
        channel = NotifyChannel(self.engine.pool, self.engine.settings, on_wakeup)
        self.engine.wakeup_channels.append(channel)
        return channel

    @reads
    async def get_position(self, connection: Connection) -> ChangePosition:
        return await read_position(connection)

    async def add(self, events: Sequence[Event]) -> None:
        if events:
            await self._add(events)


async def _is_continued(connection: Connection, after: ChangePosition) -> bool:
    """Whether the store still has the history in which the position was taken."""
    anchor = after.anchor
    if anchor is not None:
        row = await connection.fetchrow(*_ANCHOR(id=anchor.message_id))
        if row is None and not await connection.fetchval(
            *_IS_REMOVED(session_id=anchor.session_id, message_id=anchor.message_id)
        ):
            return False
        if row is not None and Anchor(*row) != anchor:
            return False
    return (
        await read_last_given(connection, "messages") >= after.message_id
        and await read_last_given(connection, "changes") >= after.change_id
    )


async def _read_settled(
    connection: Connection,
    table: Table,
    read: Statement,
    read_up_to: Statement,
    after_id: int,
    limit: int,
) -> Sequence[Row]:
    """Return the oldest rows after an id, up to the commit watermark."""
    rows: Sequence[Any] = await connection.fetch(*read(after_id=after_id, limit=limit))
    gapless = count_gapless([row[0] for row in rows], after_id)
    if gapless == len(rows):
        return rows
    if await have_writers_ended(connection, table):
        return await connection.fetch(*read_up_to(after_id=after_id, up_to_id=rows[-1][0]))
    return rows[:gapless]
