"""Find the pages of a message log on PostgreSQL, and count the messages that a caller sees."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from typing import Any

from shared_context_server.models import Caller, Message, Session
from shared_context_server.storage.codec import (
    MAX_INTEGER,
    MESSAGE,
    MESSAGE_TEXT_COLUMNS,
    Row,
    clamp,
    to_message,
)
from shared_context_server.storage.contract import MessagePage, MessageQuery
from shared_context_server.storage.postgres.audience import (
    VISIBLE,
    VISIBLE_SEQS,
    count_visible,
    visible_seqs_page,
)
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement, within_bytes
from shared_context_server.storage.rules.audience import audience_keys
from shared_context_server.storage.rules.messages import narrow_to_runs, page_parameters
from shared_context_server.storage.rules.pages import (
    Scan,
    SeqRun,
    choose_scan,
    join_runs,
    page_budget,
    take_page,
    uses_time_ranges,
)
from shared_context_server.storage.stored_messages import StoredMessages

MESSAGE_TEXT_NAMES = ("content", "recipients", "metadata")
_READ_LOG, _READ_LOG_BACK = (
    Statement(
        within_bytes(
            MESSAGE,
            f"""
    SELECT {MESSAGE} FROM messages AS m
    WHERE m.session_id = :session_id AND m.seq > :after_seq AND m.seq < :before_seq
    ORDER BY m.seq {order} LIMIT :limit""",
            MESSAGE_TEXT_NAMES,
            f"seq {order}",
        )
    )
    for order in ("ASC", "DESC")
)

# Pages and counts by scan.
_ASCENDING, _DESCENDING = "ASC", "DESC"
_ORDERS = (_ASCENDING, _DESCENDING)
_FILTERS = f"""
          m.session_id = :session_id AND m.seq > :after_seq AND m.seq < :before_seq
      AND (:visibility::text IS NULL OR m.visibility = :visibility)
      AND m.created_at BETWEEN :start_time AND :end_time
      AND {VISIBLE}"""
_SOUGHT_MESSAGES = {
    "parent": f"""
        messages AS m
        WHERE m.parent_message_id = :parent_message_id
          AND (:sender::text IS NULL OR m.sender = :sender) AND {_FILTERS}""",
    "sender": f"messages AS m WHERE m.sender = :sender AND {_FILTERS}",
    "filtered log": f"messages AS m WHERE {_FILTERS}",
    "log": """
        messages AS m
        WHERE m.session_id = :session_id AND m.seq > :after_seq AND m.seq < :before_seq""",
}


def _page(query: str, order: str) -> Statement:
    return Statement(within_bytes(MESSAGE, query, MESSAGE_TEXT_NAMES, f"seq {order}"))


# For a scan of audiences the seqs are chosen first and the messages fetched then, so that no
# message is touched that is not on the page.
_PAGES = {
    ("audience", order): _page(
        f"""
    SELECT {MESSAGE} FROM ({visible_seqs_page(order)}) AS page
    JOIN messages AS m ON m.session_id = :session_id AND m.seq = page.seq""",
        order,
    )
    for order in _ORDERS
} | {
    (scan, order): _page(
        f"SELECT {MESSAGE} FROM {matching} ORDER BY m.seq {order} LIMIT :limit OFFSET :offset",
        order,
    )
    for scan, matching in _SOUGHT_MESSAGES.items()
    for order in _ORDERS
}
_COUNTS = {
    "audience": Statement(f"SELECT count(*) FROM ({VISIBLE_SEQS}) AS visible"),
} | {
    scan: Statement(f"SELECT count(*) FROM {_SOUGHT_MESSAGES[scan]}")
    for scan in ("parent", "sender", "filtered log")
}
_FIND_TIME_RANGES = Statement("""
    SELECT up_to_seq, earliest >= :start_time AND latest <= :end_time FROM time_ranges
    WHERE session_id = :session_id AND latest >= :start_time AND earliest <= :end_time""")


async def list_page(
    connection: Connection, session: Session, caller: Caller, query: MessageQuery
) -> MessagePage:
    """Return the page of the log that a query asks for, of what the caller sees."""
    found, total_count = await _find_page(connection, session, caller, query)
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


async def read_log_page(
    connection: Connection,
    session_id: str,
    *,
    after_seq: int,
    before_seq: int | None,
    limit: int,
) -> list[Message]:
    """Return messages of the log, whoever may see them, in order. See contract/messages.py."""
    parameters = {
        "session_id": session_id,
        "after_seq": clamp(after_seq),
        "before_seq": MAX_INTEGER if before_seq is None else clamp(before_seq),
        "limit": clamp(limit),
        "max_bytes": page_budget(limit),
    }
    statement = _READ_LOG if before_seq is None else _READ_LOG_BACK
    found = await connection.fetch(*statement(**parameters))
    rows, _ = take_page(found, limit, MESSAGE_TEXT_COLUMNS)
    if before_seq is not None:
        rows.reverse()
    return [to_message(row) for row in rows]


def may_lack_removed(session: Session, query: MessageQuery, page: MessagePage) -> bool:
    """Whether the page may lack messages that the session, read before it, still had. They would be
    the first of the log, so no other pages are in question than those that begin behind a gap."""
    if query.after_seq is None and page.has_more:
        return False
    begins_after = max(query.after_seq or 0, session.removed_up_to)
    if begins_after >= session.last_seq:
        return False
    return not page.messages or page.messages[0].seq > begins_after + 1


async def _find_page(
    connection: Connection, session: Session, caller: Caller, query: MessageQuery
) -> tuple[list[Row], int]:
    """Return at most limit + 1 messages as rows, and the total count, of the log as it was when the
    session was read. Later messages, after its last_seq, are left out, and earlier ones do not
    change, unless they are removed (see may_lack_removed). So no transaction is needed."""
    order = _DESCENDING if query.after_seq is None else _ASCENDING
    scan = choose_scan(caller, query)
    if scan == "audience":
        # A message has one visibility, hence one kind of key.
        keys = audience_keys(caller, only=query.visibility, sender=query.sender)
    else:
        keys = audience_keys(caller)
    parameters = page_parameters(session, caller, query) | keys
    # Not past the end of the log when the session was read.
    parameters["before_seq"] = min(parameters["before_seq"], session.last_seq + 1)
    parameters["reach"] = clamp(query.offset + query.limit + 1)
    page = _PAGES[scan, order]
    if uses_time_ranges(scan, query):
        return await _find_page_by_time(connection, session, query, scan, page, parameters)
    rows = await connection.fetch(*page(**parameters))
    if not query.is_counted:
        return rows, 0
    if scan == "log":
        return rows, session.last_seq - session.removed_up_to
    if scan == "audience":
        count = await count_visible(
            connection,
            session.id,
            keys,
            after_seq=session.removed_up_to,
            up_to_seq=session.last_seq,
        )
        return rows, count
    everywhere = {"after_seq": session.removed_up_to, "before_seq": session.last_seq + 1}
    statement = _COUNTS[scan]
    return rows, await connection.fetchval(*statement(**(parameters | everywhere)))


async def _find_page_by_time(
    connection: Connection,
    session: Session,
    query: MessageQuery,
    scan: Scan,
    page: Statement,
    parameters: dict[str, Any],
) -> tuple[list[Row], int]:
    """Do the same as _find_page for a time range. Only runs of seqs whose times overlap the range
    are searched, and runs within it are counted without searching."""
    found = await connection.fetch(*_FIND_TIME_RANGES(**parameters))
    known = ((up_to, within) for up_to, within in found if up_to <= session.last_seq)
    runs = join_runs(known, session)
    counts = [await _count_run(connection, session, query, scan, run, parameters) for run in runs]
    met = [run for run, count in zip(runs, counts, strict=True) if count]
    if not met:
        return [], 0
    narrowed = narrow_to_runs(parameters, met)
    return await connection.fetch(*page(**narrowed)), sum(counts)


async def _count_run(
    connection: Connection,
    session: Session,
    query: MessageQuery,
    scan: Scan,
    run: SeqRun,
    parameters: dict[str, Any],
) -> int:
    if run.is_within and scan == "audience":
        bounds = {"after_seq": run.after_seq, "up_to_seq": run.up_to_seq}
        return await count_visible(connection, session.id, parameters, **bounds)
    if run.is_within and query.visibility is None:
        return run.up_to_seq - run.after_seq  # an admin sees all messages, and seqs have no gaps
    bounds = {"after_seq": run.after_seq, "before_seq": run.up_to_seq + 1}
    count = _COUNTS[scan]
    return int(await connection.fetchval(*count(**(parameters | bounds))))
