"""Find the pages of a message log on SQLite, and count the messages that a caller sees."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from shared_context_server.models import Caller, Message, Session
from shared_context_server.storage.codec import (
    MAX_INTEGER,
    MESSAGE,
    MESSAGE_TEXT_COLUMNS,
    Row,
    clamp,
    decode_json,
    to_message,
)
from shared_context_server.storage.contract import MessagePage, MessageQuery
from shared_context_server.storage.rules.audience import audience_keys
from shared_context_server.storage.rules.messages import narrow_to_runs, page_parameters
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
from shared_context_server.storage.sqlite.audience import VISIBLE, VISIBLE_SEQS, tally_visible
from shared_context_server.storage.stored_messages import StoredMessages

_COLUMNS = MESSAGE.replace("m.", "")
_BY_SEQ = itemgetter(2)
MESSAGE_SIZE = (
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
    is_small = f"{MESSAGE_SIZE} <= :max_bytes / :limit"
    return f"""
    SELECT CASE
        WHEN total(NOT {is_small}) = 0
        THEN json_group_array(json_array({MESSAGE})) FILTER (WHERE {is_small})
        WHEN (SELECT total({MESSAGE_SIZE}) FROM {chosen} ON {is_chosen}) <= :max_bytes
        THEN ({_in_one_row(f"SELECT {MESSAGE} FROM {chosen} ON {is_chosen}")})
        ELSE (
            WITH RECURSIVE
            numbered (number, seq) AS MATERIALIZED (SELECT row_number() OVER (), seq FROM ({seqs})),
            page (number, seq, size) AS (
                SELECT 1, page.seq, min({MESSAGE_SIZE}, :max_bytes)
                FROM numbered AS page CROSS JOIN messages AS m INDEXED BY messages_by_seq
                ON {is_chosen} WHERE page.number = 1
                UNION ALL
                SELECT page.number, page.seq, before.size + {MESSAGE_SIZE}
                FROM page AS before
                CROSS JOIN numbered AS page ON page.number = before.number + 1
                CROSS JOIN messages AS m INDEXED BY messages_by_seq ON {is_chosen}
                WHERE before.size <= :max_bytes
            )
            {_in_one_row(f"SELECT {MESSAGE} FROM page CROSS JOIN messages AS m ON {is_chosen}")}
        )
    END FROM {chosen} ON {is_chosen}"""


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


def list_page(
    connection: sqlite3.Connection, session: Session, caller: Caller, query: MessageQuery
) -> MessagePage:
    """Return the page of the log that a query asks for, of what the caller sees."""
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


def read_log_page(
    connection: sqlite3.Connection,
    session_id: str,
    *,
    after_seq: int,
    before_seq: int | None,
    limit: int,
) -> list[Message]:
    """Return messages of the log, whoever may see them, in order. See contract/messages.py."""
    rows = fetch_messages(
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
    rows = fetch_messages(connection, _PAGES[scan, order], parameters)
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
    return fetch_messages(connection, _PAGES[scan, order], narrowed), sum(counts)


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


def fetch_messages(
    connection: sqlite3.Connection, statement: str, parameters: dict[str, Any]
) -> list[Row]:
    """Return the rows of a statement made by _in_one_row, in no order."""
    (text,) = connection.execute(statement, parameters).fetchone()
    return decode_json(text)  # type: ignore[no-any-return]  # an array of arrays
