"""The messages of all sessions in the order of their commits, as one caller sees them."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3

from shared_context_server.models import Caller
from shared_context_server.storage.audience import names_of_caller, session_rights
from shared_context_server.storage.base import NewMessages
from shared_context_server.storage.pages import take_page
from shared_context_server.storage.rows import MESSAGE, MESSAGE_WIDE, clamp, to_message
from shared_context_server.storage.sqlite.audience import VISIBLE
from shared_context_server.storage.sqlite.sessions import CAN_SEE_SESSION

SCANNED = 1000  # ids looked at in one read, so that much that is not visible holds nobody up

# One writer at a time gives out the ids, so they grow in the order of the commits, and a sequence
# never gives one out again.
_NEWEST = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0)"
_REACH = """
    SELECT max(id), count(*) FROM (
        SELECT id FROM messages WHERE id > :after_id ORDER BY id LIMIT :scanned
    )"""
_READ = f"""
    SELECT {MESSAGE} FROM messages AS m CROSS JOIN sessions AS s ON s.id = m.session_id
    WHERE m.id > :after_id AND m.id <= :up_to_id AND s.status <> 'deleting'
      AND {CAN_SEE_SESSION} AND {VISIBLE}
    ORDER BY m.id LIMIT :limit"""


def get_newest_message_id(connection: sqlite3.Connection) -> int:
    (newest,) = connection.execute(_NEWEST).fetchone()
    return int(newest)


def list_new_messages(
    connection: sqlite3.Connection, caller: Caller, *, after_id: int, limit: int
) -> NewMessages:
    after_id = clamp(after_id)
    up_to_id, scanned = connection.execute(
        _REACH, {"after_id": after_id, "scanned": SCANNED}
    ).fetchone()
    if up_to_id is None:
        return NewMessages([], after_id, has_more=False)
    found = connection.execute(
        _READ,
        {
            "after_id": after_id,
            "up_to_id": up_to_id,
            "limit": clamp(limit + 1),
            **session_rights(caller),
            **names_of_caller(caller),
        },
    )
    rows, has_more = take_page(found, limit, MESSAGE_WIDE)
    messages = [to_message(row) for row in rows]
    if has_more:
        return NewMessages(messages, rows[-1][0], has_more=True)
    return NewMessages(messages, up_to_id, has_more=scanned == SCANNED)
