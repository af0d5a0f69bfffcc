"""The messages of all sessions by id, as one caller sees them."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from shared_context_server.errors import Unavailable
from shared_context_server.models import Caller
from shared_context_server.storage.audience import names_of_caller, session_rights
from shared_context_server.storage.base import NewMessages
from shared_context_server.storage.pages import page_budget, take_page
from shared_context_server.storage.postgres.audience import VISIBLE
from shared_context_server.storage.postgres.horizon import (
    Table,
    count_gapless,
    have_writers_ended,
    read_last_given,
)
from shared_context_server.storage.postgres.pool import Connection
from shared_context_server.storage.postgres.sessions import CAN_SEE_SESSION
from shared_context_server.storage.postgres.statements import Statement, within_bytes
from shared_context_server.storage.rows import MESSAGE, MESSAGE_WIDE, clamp, to_message

SCANNED = 1000  # ids looked at in one read, so that much that is not visible holds nobody up

_LIST_IDS = "SELECT id FROM messages WHERE id > $1 ORDER BY id LIMIT $2"
_READ = Statement(
    within_bytes(
        f"""
    SELECT {MESSAGE} FROM messages AS m JOIN sessions AS s ON s.id = m.session_id
    WHERE m.id > :after_id AND m.id <= :up_to_id AND s.status <> 'deleting'
      AND {CAN_SEE_SESSION} AND {VISIBLE}
    ORDER BY m.id LIMIT :limit""",
        ("content", "recipients", "metadata"),
        "id",
    )
)


async def read_end(connection: Connection, table: Table) -> int:
    """An id that is behind everything committed so far, and before everything committed later.
    Raises Unavailable if a transaction that began before does not end."""
    last = await read_last_given(connection, table)
    if not await have_writers_ended(connection, table):
        raise Unavailable("A transaction has been open for too long.")
    return last


async def list_new_messages(
    connection: Connection, caller: Caller, *, after_id: int, limit: int
) -> NewMessages:
    after_id = clamp(after_id)
    ids = [row[0] for row in await connection.fetch(_LIST_IDS, after_id, SCANNED)]
    is_full = len(ids) == SCANNED
    gapless = count_gapless(ids, after_id)
    # All up to the last of them is settled then, or only what is before the gap.
    if gapless < len(ids) and not await have_writers_ended(connection, "messages"):
        ids, is_full = ids[:gapless], False
    if not ids:
        return NewMessages([], after_id, has_more=False)
    parameters = {
        "after_id": after_id,
        "up_to_id": ids[-1],
        "limit": clamp(limit + 1),
        "max_bytes": page_budget(limit),
        **session_rights(caller),
        **names_of_caller(caller),
    }
    found = await connection.fetch(_READ.sql, *_READ.bind(parameters))
    rows, has_more = take_page(found, limit, MESSAGE_WIDE)
    messages = [to_message(row) for row in rows]
    if has_more:
        return NewMessages(messages, rows[-1]["id"], has_more=True)
    return NewMessages(messages, ids[-1], has_more=is_full)
