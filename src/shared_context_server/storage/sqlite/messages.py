"""The message logs on SQLite: append messages, and read those that a caller may see."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from shared_context_server.models import Ack, Caller, Message, Session
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
    narrow_to_runs,
    page_parameters,
    require_parent,
    require_visible,
    to_given_ack,
)
from shared_context_server.storage.rules.pages import (
    ITEM_OVERHEAD_BYTES,
    Scan,
    SeqRun,
    choose_scan,
    join_runs,
    page_budget,
    take_page,
    uses_time_ranges,
)
from shared_context_server.storage.sqlite.audience import (
    VISIBLE,
    VISIBLE_SEQS,
    tally_of_sender,
    tally_visible,
)
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes
from shared_context_server.storage.sqlite.idempotency import find_record, keep_answer
from shared_context_server.storage.sqlite.leases import check_fence
from shared_context_server.storage.sqlite.sessions import CAN_SEE_SESSION, use_session
from shared_context_server.storage.stored_messages import StoredMessages

_ADD = """
    INSERT INTO messages (
        session_id, seq, sender, sender_type, content, visibility, recipients, metadata,
        parent_message_id, created_at, sender_instance, ack)
    VALUES (
        :session_id, :seq, :sender, :sender_type, :content, :visibility, :recipients, :metadata,
        :parent_message_id, :created_at, :sender_instance, :ack)"""
_COLUMNS = MESSAGE.replace("m.", "")
_BY_SEQ = itemgetter(2)


_SIZE = (
    f"({ITEM_OVERHEAD_BYTES} + length(CAST(m.content AS BLOB))"
    " + length(CAST(m.metadata AS BLOB)) + length(CAST(m.recipients AS BLOB)))"
)


def _in_one_row(query: str) -> str:
    """Wrap a query so that it returns its messages as one JSON array.

    For each row the reader's thread releases the interpreter and has to wait to get it back, which
    takes milliseconds on a busy server.
    """
    return f"SELECT json_group_array(json_array({_COLUMNS})) FROM ({query})"


def _page(seqs: str) -> str:
    """Return SQL for the messages of the given seqs, in one row, as many as fill :max_bytes.

    If :limit messages of the largest size fit, they are read at once. Otherwise they are checked
    one by one. Messages after the first that does not fit, or after a first that is too large, are
    not read.
    """
    chosen = f"({seqs}) AS page CROSS JOIN messages AS m INDEXED BY messages_by_seq"
    is_chosen = "m.session_id = :session_id AND m.seq = page.seq"
    is_small = f"{_SIZE} <= :max_bytes / :limit"
    return f"""
    SELECT CASE
        WHEN total(NOT {is_small}) = 0
        THEN json_group_array(json_array({MESSAGE})) FILTER (WHERE {is_small})
        WHEN (SELECT total({_SIZE}) FROM {chosen} ON {is_chosen}) <= :max_bytes
        THEN ({_in_one_row(f"SELECT {MESSAGE} FROM {chosen} ON {is_chosen}")})
        ELSE (
            WITH RECURSIVE
            numbered (number, seq) AS MATERIALIZED (SELECT row_number() OVER (), seq FROM ({seqs})),
            page (number, seq, size) AS (
                SELECT 1, page.seq, min({_SIZE}, :max_bytes)
                FROM numbered AS page CROSS JOIN messages AS m INDEXED BY messages_by_seq
                ON {is_chosen} WHERE page.number = 1
                UNION ALL
                SELECT page.number, page.seq, before.size + {_SIZE}
                FROM page AS before
                CROSS JOIN numbered AS page ON page.number = before.number + 1
                CROSS JOIN messages AS m INDEXED BY messages_by_seq ON {is_chosen}
                WHERE before.size <= :max_bytes
            )
            {_in_one_row(f"SELECT {MESSAGE} FROM page CROSS JOIN messages AS m ON {is_chosen}")}
        )
    END FROM {chosen} ON {is_chosen}"""


_FIND = f"SELECT {MESSAGE} FROM messages AS m WHERE m.id = :id AND m.session_id = :session_id"

_FIND_ACK = """
    SELECT id, seq, created_at FROM messages
    WHERE session_id = :session_id AND parent_message_id = :message_id AND sender = :agent_id
      AND ack = 'given'"""
_LIST_ACKS = """
    SELECT sender, created_at FROM messages INDEXED BY acknowledgements
    WHERE session_id = :session_id AND parent_message_id = :message_id AND ack = 'given'
    ORDER BY seq LIMIT :limit"""

# Pages and counts by scan. Each is pinned to its index, because statistics from
# one shape of data must not change how another is read.
_ASCENDING, _DESCENDING = "ASC", "DESC"
_SOUGHT_SEQS = {
    "log": """
        SELECT seq FROM messages INDEXED BY messages_by_seq
        WHERE session_id = :session_id AND seq > :after_seq AND seq < :before_seq""",
    "audience": VISIBLE_SEQS,
}
_FILTERS = f"""
          m.session_id = :session_id AND m.seq > :after_seq AND m.seq < :before_seq
      AND (:visibility IS NULL OR m.visibility = :visibility)
      AND m.created_at BETWEEN :start_time AND :end_time
      AND {VISIBLE}"""
_READ_LOG, _READ_LOG_BACK = (
    _page(f"{_SOUGHT_SEQS['log']} ORDER BY seq {order} LIMIT :limit")
    for order in (_ASCENDING, _DESCENDING)
)
_SOUGHT_MESSAGES = {
    "parent": f"""
        messages AS m INDEXED BY messages_by_parent
        WHERE m.parent_message_id = :parent_message_id
          AND (:sender IS NULL OR m.sender = :sender) AND {_FILTERS}""",
    "sender": f"messages AS m INDEXED BY messages_by_sender WHERE m.sender = :sender AND {_FILTERS}",
    "filtered log": f"messages AS m INDEXED BY messages_by_seq WHERE {_FILTERS}",
}
# The seqs are chosen first, and then the messages are read. So skipping `offset` of them, or merging
# the three ranges of VISIBLE_SEQS, reads no message that is not on the page.
_PAGES = {
    (scan, order): _page(f"{seqs} ORDER BY seq {order} LIMIT :limit OFFSET :offset")
    for scan, seqs in _SOUGHT_SEQS.items()
    for order in (_ASCENDING, _DESCENDING)
} | {
    (scan, order): _page(
        f"SELECT m.seq FROM {matching} ORDER BY m.seq {order} LIMIT :limit OFFSET :offset"
    )
    for scan, matching in _SOUGHT_MESSAGES.items()
    for order in (_ASCENDING, _DESCENDING)
}
_COUNTS = {
    "audience": f"SELECT count(*) FROM ({VISIBLE_SEQS})",
    "parent": f"SELECT count(*) FROM {_SOUGHT_MESSAGES['parent']}",
    "sender": f"SELECT count(*) FROM {_SOUGHT_MESSAGES['sender']}",
    # The index for senders contains all columns needed here.
    "filtered log": (
        f"SELECT count(*) FROM messages AS m INDEXED BY messages_by_sender WHERE {_FILTERS}"
    ),
}
_COUNTS_WITHIN = {
    "audience": _COUNTS["audience"],
    "filtered log": f"SELECT count(*) FROM {_SOUGHT_MESSAGES['filtered log']}",
}
_FIND_TIME_RANGES = """
    SELECT json_group_array(json_array(
        up_to_seq, earliest >= :start_time AND latest <= :end_time
    ))
    FROM time_ranges
    WHERE session_id = :session_id AND latest >= :start_time AND earliest <= :end_time"""

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
_SIZES_BY_ID = f"SELECT json_group_array(json_array(m.id, {_SIZE})) FROM {_VISIBLE_BY_ID}"
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
        found, total_count = _find_page(connection, session, caller, query)
        # In the order of the chosen seqs, which SQLite does not promise to keep through the join.
        found.sort(key=_BY_SEQ, reverse=query.after_seq is None)
        rows, has_more = take_page(found, query.limit, MESSAGE_TEXT_COLUMNS)
        if query.after_seq is None:
            rows.reverse()
        return MessagePage(
            messages=StoredMessages(rows),
            total_count=total_count,
            has_more=has_more,
            last_seq=session.last_seq,
            first_seq=session.first_seq,
        )

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
        rows = _fetch_messages(
            connection,
            _READ_LOG if before_seq is None else _READ_LOG_BACK,
            {
                "session_id": session_id,
                "after_seq": clamp(after_seq),
                "before_seq": MAX_INTEGER if before_seq is None else clamp(before_seq),
                "limit": clamp(limit),
                "max_bytes": page_budget(limit),
            },
        )
        rows.sort(key=_BY_SEQ, reverse=before_seq is not None)
        page, _ = take_page(rows, limit, MESSAGE_TEXT_COLUMNS)
        return [to_message(row) for row in sorted(page, key=_BY_SEQ)]

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
        rows = _fetch_messages(connection, _LIST_BY_IDS, {"ids": json.dumps(taken), **rights})
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


def _find_page(
    connection: sqlite3.Connection, session: Session, caller: Caller, query: MessageQuery
) -> tuple[list[Row], int]:
    """Return at most limit + 1 messages as rows, and the total count."""
    order = _DESCENDING if query.after_seq is None else _ASCENDING
    scan = choose_scan(caller, query)
    if scan == "audience":
        # A message has one visibility, hence one kind of key.
        keys = audience_keys(caller, only=query.visibility, sender=query.sender)
    else:
        keys = audience_keys(caller)
    parameters = page_parameters(session, caller, query) | keys
    if uses_time_ranges(scan, query):
        return _find_page_by_time(connection, session, query, scan, order, parameters)
    rows = _fetch_messages(connection, _PAGES[scan, order], parameters)
    if not query.is_counted:
        return rows, 0
    if scan == "log":
        return rows, session.last_seq - session.removed_up_to
    if scan == "audience":
        return rows, _count_visible(connection, session, keys, session.removed_up_to, MAX_INTEGER)
    everywhere = {"after_seq": session.removed_up_to, "before_seq": MAX_INTEGER}
    (total_count,) = connection.execute(_COUNTS[scan], parameters | everywhere).fetchone()
    return rows, total_count


def _find_page_by_time(
    connection: sqlite3.Connection,
    session: Session,
    query: MessageQuery,
    scan: Scan,
    order: str,
    parameters: dict[str, Any],
) -> tuple[list[Row], int]:
    """Do the same as _find_page for a time range. Only runs of seqs whose times overlap the range
    are searched, and runs within it are counted without searching."""
    (found,) = connection.execute(_FIND_TIME_RANGES, parameters).fetchone()
    runs = join_runs(((up_to, bool(within)) for up_to, within in decode_json(found)), session)
    counts = [_count_run(connection, session, query, scan, run, parameters) for run in runs]
    met = [run for run, count in zip(runs, counts, strict=True) if count]
    if not met:
        return [], 0
    narrowed = narrow_to_runs(parameters, met)
    return _fetch_messages(connection, _PAGES[scan, order], narrowed), sum(counts)


def _count_run(
    connection: sqlite3.Connection,
    session: Session,
    query: MessageQuery,
    scan: Scan,
    run: SeqRun,
    parameters: dict[str, Any],
) -> int:
    if run.is_within and scan == "audience":
        return _count_visible(connection, session, parameters, run.after_seq, run.up_to_seq)
    if run.is_within and query.visibility is None:
        return run.up_to_seq - run.after_seq  # an admin sees all messages, and seqs have no gaps
    bounds = {"after_seq": run.after_seq, "before_seq": run.up_to_seq + 1}
    (count,) = connection.execute(_COUNTS_WITHIN[scan], parameters | bounds).fetchone()
    return int(count)


def _count_visible(
    connection: sqlite3.Connection,
    session: Session,
    keys: Mapping[str, Any],
    after_seq: int,
    up_to_seq: int,
) -> int:
    """Return how many messages these keys see between two seqs, of which the first is not before the
    session's removed_up_to."""
    count = tally_visible(connection, session.id, keys, up_to_seq=up_to_seq).count
    if after_seq:
        count -= tally_visible(connection, session.id, keys, up_to_seq=after_seq).count
    return count


def _fetch_messages(
    connection: sqlite3.Connection, statement: str, parameters: dict[str, Any]
) -> list[Row]:
    """Return the rows of a statement made by _in_one_row, in no order."""
    (text,) = connection.execute(statement, parameters).fetchone()
    return decode_json(text)  # type: ignore[no-any-return]  # an array of arrays
