"""The message logs on SQLite: append messages, and read those that a caller may see."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from shared_context_server.models import Ack, Caller, Message
from shared_context_server.storage.codec import (
    MAX_INTEGER,
    MESSAGE,
    MESSAGE_TEXT_COLUMNS,
    Row,
    clamp,
    decode_json,
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
from shared_context_server.storage.sqlite.audience import (
    VISIBLE,
    tally_of_sender,
)
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes
from shared_context_server.storage.sqlite.idempotency import find_record, keep_answer
from shared_context_server.storage.sqlite.leases import check_fence
from shared_context_server.storage.sqlite.message_pages import (
    MESSAGE_SIZE,
    fetch_messages,
    list_page,
    read_log_page,
)
from shared_context_server.storage.sqlite.sessions import CAN_SEE_SESSION, use_session

_ADD = """
    INSERT INTO messages (
        session_id, seq, sender, sender_type, content, visibility, recipients, metadata,
        parent_message_id, created_at, sender_instance, ack)
    VALUES (
        :session_id, :seq, :sender, :sender_type, :content, :visibility, :recipients, :metadata,
        :parent_message_id, :created_at, :sender_instance, :ack)"""
_FIND = f"SELECT {MESSAGE} FROM messages AS m WHERE m.id = :id AND m.session_id = :session_id"

_FIND_ACK = """
    SELECT id, seq, created_at FROM messages
    WHERE session_id = :session_id AND parent_message_id = :message_id AND sender = :agent_id
      AND ack = 'given'"""
_LIST_ACKS = """
    SELECT sender, created_at FROM messages INDEXED BY acknowledgements
    WHERE session_id = :session_id AND parent_message_id = :message_id AND ack = 'given'
    ORDER BY seq LIMIT :limit"""

# For each sender a range of the index, so that only what comes after the seq is read.
_COUNT_ALL_BY_SENDER = """
    SELECT p.agent_id, (
        SELECT count(*) FROM messages INDEXED BY messages_by_sender
        WHERE session_id = p.session_id AND sender = p.agent_id AND seq > :after_seq
    ) AS count
    FROM participants AS p WHERE p.session_id = :session_id
    ORDER BY count DESC, p.agent_id"""
_COUNT_VISIBLE_BY_SENDER = f"""
    SELECT p.agent_id, {tally_of_sender("p.agent_id", MAX_INTEGER)}
                     - {tally_of_sender("p.agent_id", ":after_seq")} AS count
    FROM participants AS p WHERE p.session_id = :session_id
    ORDER BY count DESC, p.agent_id"""

SCANNED = 1000  # ids checked in one read, so that many invisible messages block nobody

# One writer at a time gives out the ids, so they grow in the order of the commits, and a sequence
# never gives one out again.
_NEWEST_ID = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0)"
_NEW_REACH = """
    SELECT max(id), count(*) FROM (
        SELECT id FROM messages WHERE id > :after_id ORDER BY id LIMIT :scanned
    )"""
_ADDRESSED = "(m.recipients <> '[]' OR instr(m.content, '@') OR instr(m.content, '\uff20'))"
_LIST_NEW = f"""
    SELECT {MESSAGE} FROM messages AS m CROSS JOIN sessions AS s ON s.id = m.session_id
    WHERE m.id > :after_id AND m.id <= :up_to_id AND s.status <> 'deleting'
      AND {CAN_SEE_SESSION} AND {VISIBLE} AND (NOT :is_addressed OR {_ADDRESSED})
    ORDER BY m.id LIMIT :limit"""
_LIST_UNREAD_TO = f"""
    SELECT {MESSAGE} FROM messages AS m
    JOIN sessions AS s ON s.id = m.session_id
    LEFT JOIN cursors AS c ON c.session_id = m.session_id AND c.agent_id = :agent_id
    WHERE m.id > ({_NEWEST_ID}) - :scanned AND s.status <> 'deleting'
      AND m.sender <> :agent_id AND m.seq > coalesce(c.seq, 0)
      AND (instr(m.recipients, :recipient) OR instr(m.content, :at_name)
           OR instr(m.content, :wide_at_name))
    ORDER BY m.id DESC LIMIT :limit"""

_VISIBLE_BY_ID = f"""
    json_each(:ids) AS wanted
    CROSS JOIN messages AS m ON m.id = wanted.value
    CROSS JOIN sessions AS s ON s.id = m.session_id
    WHERE s.status <> 'deleting' AND {CAN_SEE_SESSION} AND {VISIBLE}"""
_SIZES_BY_ID = f"SELECT json_group_array(json_array(m.id, {MESSAGE_SIZE})) FROM {_VISIBLE_BY_ID}"
_LIST_BY_IDS = f"SELECT json_group_array(json_array({MESSAGE})) FROM {_VISIBLE_BY_ID}"


class Messages(Subject):
    """The log of each session. See contract/messages.py."""

    @writes
    def append(
        self, connection: sqlite3.Connection, new: NewMessage, guard: SessionGuard
    ) -> AddedMessage:
        session = use_session(connection, new.session_id)
        if new.ack is Ack.GIVEN and (row := _find_ack(connection, new)) is not None:
            return to_given_ack(row)
        call = find_message_call(new)
        record = None if call is None else find_record(connection, call)
        first = check_write(call, record, session, guard)
        if first is not None:
            return to_duplicate_message(first)
        if new.fence is not None:
            check_fence(connection, new.session_id, new.fence, new.sender, new.created_at)
        if new.parent_message_id is not None:
            require_parent(_find(connection, new.session_id, new.parent_message_id), new)
        added = append_to_log(connection, new, session.last_seq + 1)
        if call is not None:
            keep_answer(connection, call, message_answer(added), new.created_at)
        return added

    @reads
    def list_visible(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        caller: Caller,
        query: MessageQuery,
        guard: SessionGuard,
    ) -> MessagePage:
        session = use_session(connection, session_id, guard)
        return list_page(connection, session, caller, query)

    @reads
    def get(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        message_id: int,
        caller: Caller,
        guard: SessionGuard,
    ) -> Message:
        use_session(connection, session_id, guard)
        message = _find(connection, session_id, message_id)
        return require_visible(message, message_id, caller)

    @reads
    def read_log(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        *,
        after_seq: int,
        before_seq: int | None = None,
        limit: int,
        guard: SessionGuard,
    ) -> list[Message]:
        use_session(connection, session_id, guard)
        return read_log_page(
            connection, session_id, after_seq=after_seq, before_seq=before_seq, limit=limit
        )

    @reads
    def count_by_sender(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        caller: Caller,
        *,
        after_seq: int,
        guard: SessionGuard,
    ) -> list[SenderCount]:
        session = use_session(connection, session_id, guard)
        after_seq = max(clamp(after_seq), session.removed_up_to)
        statement = _COUNT_ALL_BY_SENDER if caller.is_admin else _COUNT_VISIBLE_BY_SENDER
        rows = connection.execute(
            statement,
            {"session_id": session_id, "after_seq": after_seq, **audience_keys(caller)},
        )
        return [SenderCount(*row) for row in rows if row[1]]

    @reads
    def list_acknowledgements(
        self, connection: sqlite3.Connection, session_id: str, message_id: int, *, limit: int
    ) -> list[Acknowledgement]:
        rows = connection.execute(
            _LIST_ACKS,
            {"session_id": session_id, "message_id": clamp(message_id), "limit": clamp(limit)},
        )
        return [Acknowledgement(row[0], decode_time(row[1])) for row in rows]

    @reads
    def list_by_ids(
        self, connection: sqlite3.Connection, caller: Caller, ids: Sequence[int]
    ) -> list[Message]:
        rights = {**session_rights(caller), **audience_keys(caller)}
        order = {message_id: place for place, message_id in enumerate(ids)}
        wanted = json.dumps([clamp(message_id) for message_id in ids])
        (text,) = connection.execute(_SIZES_BY_ID, {"ids": wanted, **rights}).fetchone()
        sizes: list[tuple[int, int]] = sorted(decode_json(text), key=lambda row: order[row[0]])
        left = page_budget(len(ids))
        taken: list[int] = []
        for message_id, size in sizes:
            left -= size
            if left < 0 and taken:
                break
            taken.append(message_id)
        rows = fetch_messages(connection, _LIST_BY_IDS, {"ids": json.dumps(taken), **rights})
        return [to_message(row) for row in sorted(rows, key=lambda row: order[row[0]])]

    @reads
    def get_newest_id(self, connection: sqlite3.Connection) -> int:
        (newest,) = connection.execute(_NEWEST_ID).fetchone()
        return int(newest)

    @reads
    def list_new(
        self,
        connection: sqlite3.Connection,
        caller: Caller,
        *,
        after_id: int,
        limit: int,
        is_addressed: bool = False,
    ) -> NewMessages:
        after_id = clamp(after_id)
        up_to_id, scanned = connection.execute(
            _NEW_REACH, {"after_id": after_id, "scanned": SCANNED}
        ).fetchone()
        if up_to_id is None:
            return NewMessages([], after_id, has_more=False)
        found = connection.execute(
            _LIST_NEW,
            {
                "after_id": after_id,
                "up_to_id": up_to_id,
                "limit": clamp(limit + 1),
                "is_addressed": is_addressed,
                **session_rights(caller),
                **audience_keys(caller),
            },
        )
        rows, has_more = take_page(found, limit, MESSAGE_TEXT_COLUMNS)
        messages = [to_message(row) for row in rows]
        if has_more:
            return NewMessages(messages, rows[-1][0], has_more=True)
        return NewMessages(messages, up_to_id, has_more=scanned == SCANNED)

    @reads
    def list_unread_to(
        self, connection: sqlite3.Connection, agent_id: str, *, limit: int
    ) -> list[Message]:
        found = connection.execute(_LIST_UNREAD_TO, addressing(agent_id, limit))
        rows, _ = take_page(found, limit, MESSAGE_TEXT_COLUMNS)
        return [to_message(row) for row in reversed(rows)]


def append_to_log(connection: sqlite3.Connection, new: NewMessage, seq: int) -> AddedMessage:
    """Insert the message. `seq` must be the session's last one + 1."""
    sender = new.sender
    added = connection.execute(
        _ADD,
        {
            "session_id": new.session_id,
            "seq": seq,
            "sender": sender.agent_id,
            "sender_type": sender.agent_type,
            "content": new.content,
            "visibility": new.visibility,
            "recipients": encode_json(new.recipients),
            "metadata": encode_json(new.metadata),
            "parent_message_id": new.parent_message_id,
            "created_at": encode_time(new.created_at),
            "sender_instance": sender.instance,
            "ack": new.ack.value,
        },
    )
    message_id = added.lastrowid
    assert message_id is not None
    return AddedMessage(id=message_id, seq=seq, timestamp=new.created_at)


def _find_ack(connection: sqlite3.Connection, new: NewMessage) -> Row | None:
    row: Row | None = connection.execute(_FIND_ACK, ack_parameters(new)).fetchone()
    return row


def _find(connection: sqlite3.Connection, session_id: str, message_id: int) -> Message | None:
    row = connection.execute(_FIND, {"id": clamp(message_id), "session_id": session_id}).fetchone()
    return None if row is None else to_message(row)
