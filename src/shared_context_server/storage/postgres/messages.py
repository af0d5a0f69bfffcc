"""The message logs on PostgreSQL: append messages, and read those that a caller may see."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared_context_server.models import Ack, Caller, Message, Session
from shared_context_server.storage.codec import (
    MAX_INTEGER,
    MESSAGE,
    MESSAGE_TEXT_COLUMNS,
    clamp,
    decode_time,
    encode_json,
    encode_time,
    to_message,
)
from shared_context_server.storage.contract import (
    Acknowledgement,
    AddedMessage,
    MessagePage,
    MessageQuery,
    NewMessage,
    NewMessages,
    SenderCount,
    SessionGuard,
)
from shared_context_server.storage.postgres.audience import (
    VISIBLE,
    tally_of_sender,
)
from shared_context_server.storage.postgres.engine.commit_watermark import (
    count_gapless,
    have_writers_ended,
    read_end,
)
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement, within_bytes
from shared_context_server.storage.postgres.engine.work import (
    Subject,
    reads,
    reads_snapshot,
    writes,
)
from shared_context_server.storage.postgres.idempotency import find_record, keep_answer
from shared_context_server.storage.postgres.leases import check_fence
from shared_context_server.storage.postgres.message_pages import (
    MESSAGE_TEXT_NAMES,
    list_page,
    may_lack_removed,
    read_log_page,
)
from shared_context_server.storage.postgres.sessions import CAN_SEE_SESSION, use_session
from shared_context_server.storage.rules.audience import audience_keys, session_rights
from shared_context_server.storage.rules.idempotency import (
    check_write,
    find_message_call,
    message_answer,
    to_duplicate_message,
)
from shared_context_server.storage.rules.messages import (
    ack_parameters,
    addressing,
    require_parent,
    require_visible,
    to_given_ack,
)
from shared_context_server.storage.rules.pages import (
    page_budget,
    take_page,
)

_ADD = Statement("""
    INSERT INTO messages (
        session_id, seq, sender, sender_type, content, visibility, recipients, metadata,
        parent_message_id, created_at, sender_instance, ack)
    VALUES (
        :session_id, :seq, :sender, :sender_type, :content, :visibility, :recipients, :metadata,
        :parent_message_id, :created_at, :sender_instance, :ack)
    RETURNING id""")
_APPEND = Statement("""
    SELECT id, seq FROM append_message(
        :session_id, :session_created_at, :sender, :sender_type, :visibility, :recipients,
        :metadata, :content, :created_at, :key, :kind, :fingerprint, :sender_instance)""")
# PostgreSQL joins the two functions by calling the second for one row after the other, in order.
# Not used for a single message: arrays are planned at each call, which would cost more than it.
_APPEND_SEVERAL = Statement("""
    SELECT new.number, added.id, added.seq
    FROM unnest(
        :sender::text[], :sender_type::text[], :visibility::text[], :recipients::text[],
        :metadata::text[], :content::text[], :created_at::bigint[], :key::text[], :kind::text[],
        :fingerprint::text[], :sender_instance::text[]
    ) WITH ORDINALITY AS new (
        sender, sender_type, visibility, recipients, metadata, content, created_at, key, kind,
        fingerprint, sender_instance, number)
    CROSS JOIN LATERAL append_message(
        :session_id, :session_created_at, new.sender, new.sender_type, new.visibility,
        new.recipients, new.metadata, new.content, new.created_at, new.key, new.kind,
        new.fingerprint, new.sender_instance) AS added""")
_FIND = Statement(
    f"SELECT {MESSAGE} FROM messages AS m WHERE m.id = :id AND m.session_id = :session_id"
)
_FIND_ACK = Statement("""
    SELECT id, seq, created_at FROM messages
    WHERE session_id = :session_id AND parent_message_id = :message_id AND sender = :agent_id
      AND ack = 'given'""")
_LIST_ACKS = Statement("""
    SELECT sender, created_at FROM messages
    WHERE session_id = :session_id AND parent_message_id = :message_id AND ack = 'given'
    ORDER BY seq LIMIT :limit""")

# For each sender a range of an index, so that only what comes after the seq is read.
_COUNT_ALL_BY_SENDER = Statement("""
    SELECT p.agent_id, (
        SELECT count(*) FROM messages
        WHERE session_id = p.session_id AND sender = p.agent_id AND seq > :after_seq
    ) AS count
    FROM participants AS p WHERE p.session_id = :session_id
    ORDER BY count DESC, p.agent_id""")
_COUNT_VISIBLE_BY_SENDER = Statement(f"""
    SELECT p.agent_id, {tally_of_sender("p.agent_id", str(MAX_INTEGER))}
                     - {tally_of_sender("p.agent_id", ":after_seq")} AS count
    FROM participants AS p WHERE p.session_id = :session_id
    ORDER BY count DESC, p.agent_id""")

SCANNED = 1000  # ids checked in one read, so that many invisible messages block nobody

_LIST_NEW_IDS = Statement("SELECT id FROM messages WHERE id > :after_id ORDER BY id LIMIT :limit")
_ADDRESSED = """(
    m.recipients <> '[]' OR strpos(m.content, '@') > 0 OR strpos(m.content, '\uff20') > 0
)"""
_LIST_NEW = Statement(
    within_bytes(
        MESSAGE,
        f"""
    SELECT {MESSAGE} FROM messages AS m JOIN sessions AS s ON s.id = m.session_id
    WHERE m.id > :after_id AND m.id <= :up_to_id AND s.status <> 'deleting'
      AND {CAN_SEE_SESSION} AND {VISIBLE} AND (NOT :is_addressed::boolean OR {_ADDRESSED})
    ORDER BY m.id LIMIT :limit""",
        MESSAGE_TEXT_NAMES,
        "id",
    )
)

_LIST_BY_IDS = Statement(
    within_bytes(
        MESSAGE,
        f"""
    SELECT {MESSAGE}, wanted.place
    FROM unnest(:ids::bigint[]) WITH ORDINALITY AS wanted (id, place)
    JOIN messages AS m ON m.id = wanted.id JOIN sessions AS s ON s.id = m.session_id
    WHERE s.status <> 'deleting' AND {CAN_SEE_SESSION} AND {VISIBLE}
    ORDER BY wanted.place""",
        MESSAGE_TEXT_NAMES,
        "place",
    )
)


_LIST_UNREAD_TO = Statement(
    within_bytes(
        MESSAGE,
        f"""
    SELECT {MESSAGE} FROM messages AS m
    JOIN sessions AS s ON s.id = m.session_id
    LEFT JOIN cursors AS c ON c.session_id = m.session_id AND c.agent_id = :agent_id
    WHERE m.id > (SELECT coalesce(max(id), 0) FROM messages) - :scanned::bigint
      AND s.status <> 'deleting' AND m.sender <> :agent_id AND m.seq > coalesce(c.seq, 0)
      AND (strpos(m.recipients, :recipient) > 0 OR strpos(m.content, :at_name) > 0
           OR strpos(m.content, :wide_at_name) > 0)
    ORDER BY m.id DESC LIMIT :limit""",
        MESSAGE_TEXT_NAMES,
        "id DESC",
    )
)


async def append_batch(
    connection: Connection, news: Sequence[NewMessage], session: Session
) -> list[AddedMessage | None]:
    """Append messages in one round trip, in order, to `session` as an active one. The guard has
    allowed their senders, and they have no fence, parent or ack. The result is None for a message that
    was not written, because the session has changed or the key is known."""
    rows = [_batch_columns(new) for new in news]
    session_columns: dict[str, Any] = {
        "session_id": session.id,
        "session_created_at": encode_time(session.created_at),
    }
    if len(rows) == 1:
        row = await connection.fetchrow(*_APPEND(**(rows[0] | session_columns)))
        found = {} if row is None else {1: row}
    else:
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
        several = await connection.fetch(*_APPEND_SEVERAL(**(columns | session_columns)))
        found = {row["number"]: row for row in several}
    return [
        AddedMessage(found[number]["id"], found[number]["seq"], new.created_at)
        if number in found
        else None
        for number, new in enumerate(news, start=1)
    ]


def _batch_columns(new: NewMessage) -> dict[str, Any]:
    call = find_message_call(new)
    return {
        **_columns(new),
        "key": new.idempotency_key,
        "kind": call.kind if call else None,
        "fingerprint": new.fingerprint,
    }


class Messages(Subject):
    """The log of each session. See contract/messages.py."""

    @writes
    async def _append_one(
        self, connection: Connection, new: NewMessage, guard: SessionGuard
    ) -> AddedMessage:
        session = await use_session(connection, new.session_id, lock="NO KEY UPDATE")
        if new.ack is Ack.GIVEN:
            row = await connection.fetchrow(*_FIND_ACK(**ack_parameters(new)))
            if row is not None:
                return to_given_ack(tuple(row))
        call = find_message_call(new)
        record = None if call is None else await find_record(connection, call)
        first = check_write(call, record, session, guard)
        if first is not None:
            return to_duplicate_message(first)
        if new.fence is not None:
            await check_fence(connection, new.session_id, new.fence, new.sender, new.created_at)
        if new.parent_message_id is not None:
            require_parent(await _find(connection, new.session_id, new.parent_message_id), new)
        added = await append_to_log(connection, new, session.last_seq + 1)
        if call is not None:
            await keep_answer(connection, call, message_answer(added), new.created_at)
        return added

    @reads
    async def _list_unless_moved(
        self,
        connection: Connection,
        session_id: str,
        caller: Caller,
        query: MessageQuery,
        guard: SessionGuard,
    ) -> MessagePage | None:
        """Return the page, or None if messages that may belong to it were removed meanwhile."""
        session = await use_session(connection, session_id, guard)
        page = await list_page(connection, session, caller, query)
        if may_lack_removed(session, query, page):
            now = await use_session(connection, session_id, guard)
            if now.first_seq != session.first_seq:
                return None
        return page

    @reads_snapshot
    async def _list_in_snapshot(
        self,
        connection: Connection,
        session_id: str,
        caller: Caller,
        query: MessageQuery,
        guard: SessionGuard,
    ) -> MessagePage:
        session = await use_session(connection, session_id, guard)
        return await list_page(connection, session, caller, query)

    @reads
    async def get(
        self,
        connection: Connection,
        session_id: str,
        message_id: int,
        caller: Caller,
        guard: SessionGuard,
    ) -> Message:
        await use_session(connection, session_id, guard)
        message = await _find(connection, session_id, message_id)
        return require_visible(message, message_id, caller)

    @reads
    async def read_log(
        self,
        connection: Connection,
        session_id: str,
        *,
        after_seq: int,
        before_seq: int | None = None,
        limit: int,
        guard: SessionGuard,
    ) -> list[Message]:
        await use_session(connection, session_id, guard)
        return await read_log_page(
            connection, session_id, after_seq=after_seq, before_seq=before_seq, limit=limit
        )

    @reads_snapshot
    async def count_by_sender(
        self,
        connection: Connection,
        session_id: str,
        caller: Caller,
        *,
        after_seq: int,
        guard: SessionGuard,
    ) -> list[SenderCount]:
        session = await use_session(connection, session_id, guard)
        statement = _COUNT_ALL_BY_SENDER if caller.is_admin else _COUNT_VISIBLE_BY_SENDER
        parameters = {
            "session_id": session_id,
            "after_seq": max(clamp(after_seq), session.removed_up_to),
            **audience_keys(caller),
        }
        rows = await connection.fetch(*statement(**parameters))
        return [SenderCount(*row) for row in rows if row[1]]

    @reads
    async def list_acknowledgements(
        self, connection: Connection, session_id: str, message_id: int, *, limit: int
    ) -> list[Acknowledgement]:
        rows = await connection.fetch(
            *_LIST_ACKS(session_id=session_id, message_id=clamp(message_id), limit=clamp(limit))
        )
        return [Acknowledgement(row[0], decode_time(row[1])) for row in rows]

    @reads
    async def list_new(
        self,
        connection: Connection,
        caller: Caller,
        *,
        after_id: int,
        limit: int,
        is_addressed: bool = False,
    ) -> NewMessages:
        after_id = clamp(after_id)
        ids = [
            row[0]
            for row in await connection.fetch(*_LIST_NEW_IDS(after_id=after_id, limit=SCANNED))
        ]
        is_full = len(ids) == SCANNED
        gapless = count_gapless(ids, after_id)
        # Then all ids up to the last one are settled; otherwise only those before the gap.
        if gapless < len(ids) and not await have_writers_ended(connection, "messages"):
            ids, is_full = ids[:gapless], False
        if not ids:
            return NewMessages([], after_id, has_more=False)
        parameters = {
            "after_id": after_id,
            "up_to_id": ids[-1],
            "limit": clamp(limit + 1),
            "max_bytes": page_budget(limit),
            "is_addressed": is_addressed,
            **session_rights(caller),
            **audience_keys(caller),
        }
        found = await connection.fetch(*_LIST_NEW(**parameters))
        rows, has_more = take_page(found, limit, MESSAGE_TEXT_COLUMNS)
        messages = [to_message(row) for row in rows]
        if has_more:
            return NewMessages(messages, rows[-1]["id"], has_more=True)
        return NewMessages(messages, ids[-1], has_more=is_full)

    @reads
    async def list_unread_to(
        self, connection: Connection, agent_id: str, *, limit: int
    ) -> list[Message]:
        found = await connection.fetch(*_LIST_UNREAD_TO(**addressing(agent_id, limit)))
        rows, _ = take_page(found, limit, MESSAGE_TEXT_COLUMNS)
        return [to_message(row) for row in reversed(rows)]

    async def list_visible(
        self, session_id: str, caller: Caller, query: MessageQuery, guard: SessionGuard
    ) -> MessagePage:
        page = await self._list_unless_moved(session_id, caller, query, guard)
        if page is not None:
            return page
        # A transaction costs two more round trips, so it is used only here.
        return await self._list_in_snapshot(session_id, caller, query, guard)

    async def append(self, new: NewMessage, guard: SessionGuard) -> AddedMessage:
        # Only the idempotency key has to be looked up.
        if new.fence is None and new.parent_message_id is None and not new.ack:
            added = await self.engine.batcher.add(new, guard)
            if added is not None:
                return added
        # Append with the session as it is now, which also raises the right error.
        return await self._append_one(new, guard)

    @reads
    async def list_by_ids(
        self, connection: Connection, caller: Caller, ids: Sequence[int]
    ) -> list[Message]:
        parameters = {
            "ids": [clamp(message_id) for message_id in ids],
            "max_bytes": page_budget(len(ids)),
            **session_rights(caller),
            **audience_keys(caller),
        }
        found = await connection.fetch(*_LIST_BY_IDS(**parameters))
        rows, _ = take_page(found, len(ids), MESSAGE_TEXT_COLUMNS)
        return [to_message(row) for row in rows]

    @reads
    async def get_newest_id(self, connection: Connection) -> int:
        return await read_end(connection, "messages")


async def append_to_log(connection: Connection, new: NewMessage, seq: int) -> AddedMessage:
    """Insert the message. The session is locked with NO KEY UPDATE, and `seq` must be its last one
    + 1."""
    columns = {**_columns(new), "seq": seq, "ack": new.ack.value}
    row = await connection.fetchrow(*_ADD(**columns))
    assert row is not None
    return AddedMessage(id=row["id"], seq=seq, timestamp=new.created_at)


def _columns(new: NewMessage) -> dict[str, Any]:
    return {
        "session_id": new.session_id,
        "sender": new.sender.agent_id,
        "sender_type": new.sender.agent_type,
        "content": new.content,
        "visibility": new.visibility,
        "recipients": encode_json(new.recipients),
        "metadata": encode_json(new.metadata),
        "parent_message_id": new.parent_message_id,
        "created_at": encode_time(new.created_at),
        "sender_instance": new.sender.instance,
    }


async def _find(connection: Connection, session_id: str, message_id: int) -> Message | None:
    row = await connection.fetchrow(*_FIND(id=clamp(message_id), session_id=session_id))
    return None if row is None else to_message(row)
