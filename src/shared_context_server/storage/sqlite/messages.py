"""The log of a session: appending to it and reading what a caller may see of it."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3
from operator import itemgetter
from typing import Any

from shared_context_server import policy
from shared_context_server.errors import MessageNotFound
from shared_context_server.models import Caller, Message, Session
from shared_context_server.storage.audience import names_of_caller
from shared_context_server.storage.base import (
    AddedMessage,
    MessagePage,
    MessageQuery,
    NewMessage,
    SenderCount,
    SessionGuard,
)
from shared_context_server.storage.idempotency import (
    find_message_call,
    message_answer,
    to_duplicate_message,
)
from shared_context_server.storage.pages import (
    ITEM_OVERHEAD_BYTES,
    Place,
    SeqRun,
    choose_place,
    is_sought_by_time,
    join_runs,
    page_budget,
    take_page,
)
from shared_context_server.storage.rows import (
    MAX_INTEGER,
    MESSAGE,
    MESSAGE_WIDE,
    Row,
    clamp,
    decode_json,
    encode_json,
    encode_time,
    to_message,
)
from shared_context_server.storage.sqlite.audience import (
    HEARD,
    VISIBLE,
    tally_heard,
    tally_of_sender,
)
from shared_context_server.storage.sqlite.idempotency import find_answer, keep_answer
from shared_context_server.storage.sqlite.leases import require_fence
from shared_context_server.storage.sqlite.sessions import use_session
from shared_context_server.storage.stored_messages import StoredMessages

_ADD = """
    INSERT INTO messages (
        session_id, seq, sender, sender_type, content, visibility, recipients, metadata,
        parent_message_id, created_at)
    VALUES (
        :session_id, :seq, :sender, :sender_type, :content, :visibility, :recipients, :metadata,
        :parent_message_id, :created_at)"""
_COLUMNS = MESSAGE.replace("m.", "")
_BY_SEQ = itemgetter(2)


_SIZE = (
    f"({ITEM_OVERHEAD_BYTES} + length(CAST(m.content AS BLOB))"
    " + length(CAST(m.metadata AS BLOB)) + length(CAST(m.recipients AS BLOB)))"
)


def _in_one_row(query: str) -> str:
    """The messages of a query as one JSON array. For each row the reader's thread gives up the
    interpreter and has to wait until it gets it back, milliseconds on a busy server."""
    return f"SELECT json_group_array(json_array({_COLUMNS})) FROM ({query})"


def _page(seqs: str) -> str:
    """The messages of a session whose seqs a query gives, in one row, as far as they are needed to
    fill :max_bytes. Where each is small enough that :limit of them fit, they are read in one go. If
    they do not fit all together they are looked at one after the other, and those behind the first
    that does not fit, or behind a first that is too large, are not read."""
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

# Pages and counts by where they are sought. Each is pinned to its index, because statistics from
# one shape of data must not change how another is read.
_ASCENDING, _DESCENDING = "ASC", "DESC"
_SOUGHT_SEQS = {
    "log": """
        SELECT seq FROM messages INDEXED BY messages_by_seq
        WHERE session_id = :session_id AND seq > :after_seq AND seq < :before_seq""",
    "heard": HEARD,
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
# The seqs are chosen first and the messages fetched then: skipping `offset` of them, or merging
# the three ranges of HEARD, never touches a message that is not on the page.
_PAGES = {
    (place, order): _page(f"{seqs} ORDER BY seq {order} LIMIT :limit OFFSET :offset")
    for place, seqs in _SOUGHT_SEQS.items()
    for order in (_ASCENDING, _DESCENDING)
} | {
    (place, order): _page(
        f"SELECT m.seq FROM {matching} ORDER BY m.seq {order} LIMIT :limit OFFSET :offset"
    )
    for place, matching in _SOUGHT_MESSAGES.items()
    for order in (_ASCENDING, _DESCENDING)
}
_COUNTS = {
    "heard": f"SELECT count(*) FROM ({HEARD})",
    "parent": f"SELECT count(*) FROM {_SOUGHT_MESSAGES['parent']}",
    "sender": f"SELECT count(*) FROM {_SOUGHT_MESSAGES['sender']}",
    # The index that is made for senders happens to hold all that is asked here.
    "filtered log": (
        f"SELECT count(*) FROM messages AS m INDEXED BY messages_by_sender WHERE {_FILTERS}"
    ),
}
_COUNTS_WITHIN = {
    "heard": _COUNTS["heard"],
    "filtered log": f"SELECT count(*) FROM {_SOUGHT_MESSAGES['filtered log']}",
}
_FIND_TIME_RANGES = """
    SELECT json_group_array(json_array(
        up_to_seq, earliest >= :start_time AND latest <= :end_time
    ))
    FROM time_ranges
    WHERE session_id = :session_id AND latest >= :start_time AND earliest <= :end_time"""

_COUNT_ALL_BY_SENDER = """
    SELECT sender, count(*) AS count FROM messages INDEXED BY messages_by_sender
    WHERE session_id = :session_id AND seq > :after_seq
    GROUP BY sender ORDER BY count DESC, sender"""
_COUNT_HEARD_BY_SENDER = f"""
    SELECT p.agent_id, {tally_of_sender("p.agent_id", MAX_INTEGER)}
                     - {tally_of_sender("p.agent_id", ":after_seq")} AS count
    FROM participants AS p WHERE p.session_id = :session_id
    ORDER BY count DESC, p.agent_id"""


def add_message(
    connection: sqlite3.Connection, new: NewMessage, guard: SessionGuard
) -> AddedMessage:
    session = use_session(connection, new.session_id)
    call = find_message_call(new)
    if call is not None:
        first = find_answer(connection, call, session, guard)
        if first is not None:
            return to_duplicate_message(first)
    guard(session)
    if new.fence is not None:
        require_fence(connection, new.session_id, new.fence, new.sender, new.created_at)
    if new.parent_message_id is not None:
        _require_parent(connection, new, new.parent_message_id)
    added = _append(connection, new, session.last_seq + 1)
    if call is not None:
        keep_answer(connection, call, message_answer(added), new.created_at)
    return added


def _require_parent(connection: sqlite3.Connection, new: NewMessage, parent_id: int) -> None:
    try:
        parent = _get_visible(connection, new.session_id, parent_id, new.sender)
    except MessageNotFound as exc:
        raise MessageNotFound(parent_id, field="parent_message_id") from exc
    if not policy.can_reply_to(new.sender, parent):
        raise MessageNotFound(parent_id, field="parent_message_id")


def _append(connection: sqlite3.Connection, new: NewMessage, seq: int) -> AddedMessage:
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
        },
    )
    message_id = added.lastrowid
    assert message_id is not None
    return AddedMessage(id=message_id, seq=seq, timestamp=new.created_at)


def get_message(
    connection: sqlite3.Connection,
    session_id: str,
    message_id: int,
    caller: Caller,
    guard: SessionGuard,
) -> Message:
    use_session(connection, session_id, guard)
    return _get_visible(connection, session_id, message_id, caller)


def _get_visible(
    connection: sqlite3.Connection, session_id: str, message_id: int, caller: Caller
) -> Message:
    row = connection.execute(_FIND, {"id": clamp(message_id), "session_id": session_id}).fetchone()
    if row is None or not policy.can_see_message(caller, message := to_message(row)):
        raise MessageNotFound(message_id)
    return message


def list_messages(
    connection: sqlite3.Connection,
    session_id: str,
    caller: Caller,
    query: MessageQuery,
    guard: SessionGuard,
) -> MessagePage:
    session = use_session(connection, session_id, guard)
    found, total_count = _find_page(connection, session, caller, query)
    # In the order they were chosen in, which SQLite does not promise to keep through the join.
    found.sort(key=_BY_SEQ, reverse=query.after_seq is None)
    rows, has_more = take_page(found, query.limit, MESSAGE_WIDE)
    if query.after_seq is None:
        rows.reverse()
    return MessagePage(
        messages=StoredMessages(rows),
        total_count=total_count,
        has_more=has_more,
        last_seq=session.last_seq,
    )


def _find_page(
    connection: sqlite3.Connection, session: Session, caller: Caller, query: MessageQuery
) -> tuple[list[Row], int]:
    """Rows of at most limit + 1 messages, and the total count."""
    order = _DESCENDING if query.after_seq is None else _ASCENDING
    place = choose_place(caller, query)
    names = {}
    if place == "heard":
        # Who is no admin meets each visibility under one name.
        names = names_of_caller(caller, only=query.visibility, sender=query.sender)
    else:
        names = names_of_caller(caller)
    parameters = _page_parameters(session, caller, query) | names
    if is_sought_by_time(place, query):
        return _find_page_by_time(connection, session, query, place, order, parameters)
    rows = _fetch_messages(connection, _PAGES[place, order], parameters)
    if not query.is_counted:
        return rows, 0
    if place == "log":
        return rows, session.last_seq
    if place == "heard":
        return rows, tally_heard(connection, session.id, names).count
    everywhere = {"after_seq": 0, "before_seq": MAX_INTEGER}
    (total_count,) = connection.execute(_COUNTS[place], parameters | everywhere).fetchone()
    return rows, total_count


def _find_page_by_time(
    connection: sqlite3.Connection,
    session: Session,
    query: MessageQuery,
    place: Place,
    order: str,
    parameters: dict[str, Any],
) -> tuple[list[Row], int]:
    """As _find_page. Only the runs of seqs are looked through whose times meet the range, and those
    that lie in it are counted without."""
    (found,) = connection.execute(_FIND_TIME_RANGES, parameters).fetchone()
    runs = join_runs(
        ((up_to, bool(within)) for up_to, within in decode_json(found)), session.last_seq
    )
    counts = [_count_run(connection, session, query, place, run, parameters) for run in runs]
    met = [run for run, count in zip(runs, counts, strict=True) if count]
    if not met:
        return [], 0
    bounds = {
        "after_seq": max(parameters["after_seq"], met[0].after_seq),
        "before_seq": min(parameters["before_seq"], met[-1].up_to_seq + 1),
    }
    return _fetch_messages(connection, _PAGES[place, order], parameters | bounds), sum(counts)


def _count_run(
    connection: sqlite3.Connection,
    session: Session,
    query: MessageQuery,
    place: Place,
    run: SeqRun,
    parameters: dict[str, Any],
) -> int:
    if run.is_within and place == "heard":
        before, up_to = (
            tally_heard(connection, session.id, parameters, up_to_seq=seq).count
            for seq in (run.after_seq, run.up_to_seq)
        )
        return up_to - before
    if run.is_within and query.visibility is None:
        return run.up_to_seq - run.after_seq  # an admin sees all, and seqs have no gaps
    bounds = {"after_seq": run.after_seq, "before_seq": run.up_to_seq + 1}
    (count,) = connection.execute(_COUNTS_WITHIN[place], parameters | bounds).fetchone()
    return int(count)


def _fetch_messages(
    connection: sqlite3.Connection, statement: str, parameters: dict[str, Any]
) -> list[Row]:
    """The rows of a statement that _in_one_row has made, in no order."""
    (text,) = connection.execute(statement, parameters).fetchone()
    return decode_json(text)  # type: ignore[no-any-return]  # an array of arrays


def _page_parameters(session: Session, caller: Caller, query: MessageQuery) -> dict[str, Any]:
    start, end, parent = query.start_time, query.end_time, query.parent_message_id
    return {
        "session_id": session.id,
        "after_seq": 0 if query.after_seq is None else clamp(query.after_seq),
        "before_seq": MAX_INTEGER if query.before_seq is None else clamp(query.before_seq),
        "limit": clamp(query.limit + 1),
        "max_bytes": page_budget(query.limit),
        "offset": clamp(query.offset),
        "is_admin": caller.is_admin,
        "sender": query.sender,
        "visibility": query.visibility,
        "start_time": -MAX_INTEGER if start is None else encode_time(start),
        "end_time": MAX_INTEGER if end is None else encode_time(end),
        "parent_message_id": None if parent is None else clamp(parent),
    }


def read_log(
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
    page, _ = take_page(rows, limit, MESSAGE_WIDE)
    return [to_message(row) for row in sorted(page, key=_BY_SEQ)]


def count_by_sender(
    connection: sqlite3.Connection,
    session_id: str,
    caller: Caller,
    *,
    after_seq: int,
    guard: SessionGuard,
) -> list[SenderCount]:
    use_session(connection, session_id, guard)
    statement = _COUNT_ALL_BY_SENDER if caller.is_admin else _COUNT_HEARD_BY_SENDER
    rows = connection.execute(
        statement,
        {"session_id": session_id, "after_seq": clamp(after_seq), **names_of_caller(caller)},
    )
    return [SenderCount(*row) for row in rows if row[1]]
