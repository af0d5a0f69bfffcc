"""The log of a session: appending to it and reading what a caller may see of it."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Sequence
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
    Place,
    SeqRun,
    choose_place,
    is_sought_by_time,
    join_runs,
    page_budget,
    take_page,
)
from shared_context_server.storage.postgres.audience import (
    HEARD,
    VISIBLE,
    count_heard,
    heard_page,
    tally_of_sender,
)
from shared_context_server.storage.postgres.idempotency import find_answer, keep_answer
from shared_context_server.storage.postgres.leases import require_fence
from shared_context_server.storage.postgres.pool import Connection
from shared_context_server.storage.postgres.sessions import use_session
from shared_context_server.storage.postgres.statements import Statement, within_bytes
from shared_context_server.storage.rows import (
    MAX_INTEGER,
    MESSAGE,
    MESSAGE_WIDE,
    Row,
    clamp,
    encode_json,
    encode_time,
    to_message,
)
from shared_context_server.storage.stored_messages import StoredMessages

_ADD = Statement("""
    INSERT INTO messages (
        session_id, seq, sender, sender_type, content, visibility, recipients, metadata,
        parent_message_id, created_at)
    VALUES (
        :session_id, :seq, :sender, :sender_type, :content, :visibility, :recipients, :metadata,
        :parent_message_id, :created_at)
    RETURNING id""")
_APPEND = Statement("""
    SELECT id, seq FROM append_message(
        :session_id, :session_created_at, :sender, :sender_type, :visibility, :recipients,
        :metadata, :content, :created_at, :key, :kind, :fingerprint)""")
# Called for one after the other, in their order: that is how PostgreSQL joins two functions. For a
# single message it would cost more than the call itself, since arrays are planned anew each time.
_APPEND_SEVERAL = Statement("""
    SELECT new.number, added.id, added.seq
    FROM unnest(
        :sender::text[], :sender_type::text[], :visibility::text[], :recipients::text[],
        :metadata::text[], :content::text[], :created_at::bigint[], :key::text[], :kind::text[],
        :fingerprint::text[]
    ) WITH ORDINALITY AS new (
        sender, sender_type, visibility, recipients, metadata, content, created_at, key, kind,
        fingerprint, number)
    CROSS JOIN LATERAL append_message(
        :session_id, :session_created_at, new.sender, new.sender_type, new.visibility,
        new.recipients, new.metadata, new.content, new.created_at, new.key, new.kind,
        new.fingerprint) AS added""")
_FIND = f"SELECT {MESSAGE} FROM messages AS m WHERE m.id = $1 AND m.session_id = $2"
_WIDE = ("content", "recipients", "metadata")
_READ_LOG, _READ_LOG_BACK = (
    Statement(
        within_bytes(
            f"""
    SELECT {MESSAGE} FROM messages AS m
    WHERE m.session_id = :session_id AND m.seq > :after_seq AND m.seq < :before_seq
    ORDER BY m.seq {order} LIMIT :limit""",
            _WIDE,
            f"seq {order}",
        )
    )
    for order in ("ASC", "DESC")
)

# Pages and counts by where they are sought.
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
    return Statement(within_bytes(query, _WIDE, f"seq {order}"))


# For those who hear by name the seqs are chosen first and the messages fetched then, so that no
# message is touched that is not on the page.
_PAGES = {
    ("heard", order): _page(
        f"""
    SELECT {MESSAGE} FROM ({heard_page(order)}) AS page
    JOIN messages AS m ON m.session_id = :session_id AND m.seq = page.seq""",
        order,
    )
    for order in _ORDERS
} | {
    (place, order): _page(
        f"SELECT {MESSAGE} FROM {matching} ORDER BY m.seq {order} LIMIT :limit OFFSET :offset",
        order,
    )
    for place, matching in _SOUGHT_MESSAGES.items()
    for order in _ORDERS
}
_COUNTS = {
    "heard": Statement(f"SELECT count(*) FROM ({HEARD}) AS heard"),
} | {
    place: Statement(f"SELECT count(*) FROM {_SOUGHT_MESSAGES[place]}")
    for place in ("parent", "sender", "filtered log")
}
_FIND_TIME_RANGES = Statement("""
    SELECT up_to_seq, earliest >= :start_time AND latest <= :end_time FROM time_ranges
    WHERE session_id = :session_id AND latest >= :start_time AND earliest <= :end_time""")

_COUNT_ALL_BY_SENDER = Statement("""
    SELECT sender, count(*) AS count FROM messages
    WHERE session_id = :session_id AND seq > :after_seq
    GROUP BY sender ORDER BY count DESC, sender""")
_COUNT_HEARD_BY_SENDER = Statement(f"""
    SELECT p.agent_id, {tally_of_sender("p.agent_id", str(MAX_INTEGER))}
                     - {tally_of_sender("p.agent_id", ":after_seq")} AS count
    FROM participants AS p WHERE p.session_id = :session_id
    ORDER BY count DESC, p.agent_id""")


def is_plain(new: NewMessage) -> bool:
    """Whether append_plain can add it: nothing has to be looked up but the idempotency key."""
    return new.fence is None and new.parent_message_id is None


async def append_plain(
    connection: Connection, news: Sequence[NewMessage], session: Session
) -> list[AddedMessage | None]:
    """Add plain messages in one trip, in their order, of senders whom the guard has let pass to
    `session` as an active one. None for one of which nothing is written, since the session is not
    as it was or its key is known."""
    rows = [_plain_columns(new) for new in news]
    place: dict[str, Any] = {
        "session_id": session.id,
        "session_created_at": encode_time(session.created_at),
    }
    if len(rows) == 1:
        row = await connection.fetchrow(_APPEND.sql, *_APPEND.bind(rows[0] | place))
        found = {} if row is None else {1: row}
    else:
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
        several = await connection.fetch(
            _APPEND_SEVERAL.sql, *_APPEND_SEVERAL.bind(columns | place)
        )
        found = {row["number"]: row for row in several}
    return [
        AddedMessage(found[number]["id"], found[number]["seq"], new.created_at)
        if number in found
        else None
        for number, new in enumerate(news, start=1)
    ]


def _plain_columns(new: NewMessage) -> dict[str, Any]:
    call = find_message_call(new)
    return {
        **_columns(new),
        "key": new.idempotency_key,
        "kind": call.kind if call else None,
        "fingerprint": new.fingerprint,
    }


async def add_message(connection: Connection, new: NewMessage, guard: SessionGuard) -> AddedMessage:
    session = await use_session(connection, new.session_id, lock="NO KEY UPDATE")
    call = find_message_call(new)
    if call is not None:
        first = await find_answer(connection, call, session, guard)
        if first is not None:
            return to_duplicate_message(first)
    guard(session)
    if new.fence is not None:
        await require_fence(connection, new.session_id, new.fence, new.sender, new.created_at)
    if new.parent_message_id is not None:
        await _require_parent(connection, new, new.parent_message_id)
    seq = session.last_seq + 1
    row = await connection.fetchrow(_ADD.sql, *_ADD.bind({**_columns(new), "seq": seq}))
    assert row is not None
    added = AddedMessage(id=row["id"], seq=seq, timestamp=new.created_at)
    if call is not None:
        await keep_answer(connection, call, message_answer(added), new.created_at)
    return added


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
    }


async def _require_parent(connection: Connection, new: NewMessage, parent_id: int) -> None:
    try:
        parent = await _get_visible(connection, new.session_id, parent_id, new.sender)
    except MessageNotFound as exc:
        raise MessageNotFound(parent_id, field="parent_message_id") from exc
    if not policy.can_reply_to(new.sender, parent):
        raise MessageNotFound(parent_id, field="parent_message_id")


async def get_message(
    connection: Connection,
    session_id: str,
    message_id: int,
    caller: Caller,
    guard: SessionGuard,
) -> Message:
    await use_session(connection, session_id, guard)
    return await _get_visible(connection, session_id, message_id, caller)


async def _get_visible(
    connection: Connection, session_id: str, message_id: int, caller: Caller
) -> Message:
    row = await connection.fetchrow(_FIND, clamp(message_id), session_id)
    if row is None or not policy.can_see_message(caller, message := to_message(row)):
        raise MessageNotFound(message_id)
    return message


async def list_messages(
    connection: Connection,
    session_id: str,
    caller: Caller,
    query: MessageQuery,
    guard: SessionGuard,
) -> MessagePage:
    session = await use_session(connection, session_id, guard)
    found, total_count = await _find_page(connection, session, caller, query)
    rows, has_more = take_page(found, query.limit, MESSAGE_WIDE)
    if query.after_seq is None:
        rows.reverse()
    return MessagePage(
        messages=StoredMessages(rows),
        total_count=total_count,
        has_more=has_more,
        last_seq=session.last_seq,
    )


async def _find_page(
    connection: Connection, session: Session, caller: Caller, query: MessageQuery
) -> tuple[list[Row], int]:
    """Rows of at most limit + 1 messages, and the total count: of the log as it was when the session
    was read. What came behind its last_seq since then is left out, and what is before never changes,
    so that this needs no transaction."""
    order = _DESCENDING if query.after_seq is None else _ASCENDING
    place = choose_place(caller, query)
    if place == "heard":
        # Who is no admin meets each visibility under one name.
        names = names_of_caller(caller, only=query.visibility, sender=query.sender)
    else:
        names = names_of_caller(caller)
    parameters = _page_parameters(session, caller, query) | names
    page = _PAGES[place, order]
    if is_sought_by_time(place, query):
        return await _find_page_by_time(connection, session, query, place, page, parameters)
    rows = await connection.fetch(page.sql, *page.bind(parameters))
    if not query.is_counted:
        return rows, 0
    if place == "log":
        return rows, session.last_seq
    if place == "heard":
        return rows, await count_heard(connection, session.id, names, up_to_seq=session.last_seq)
    everywhere = {"after_seq": 0, "before_seq": session.last_seq + 1}
    count = _COUNTS[place]
    return rows, await connection.fetchval(count.sql, *count.bind(parameters | everywhere))


async def _find_page_by_time(
    connection: Connection,
    session: Session,
    query: MessageQuery,
    place: Place,
    page: Statement,
    parameters: dict[str, Any],
) -> tuple[list[Row], int]:
    """As _find_page. Only the runs of seqs are looked through whose times meet the range, and those
    that lie in it are counted without."""
    found = await connection.fetch(_FIND_TIME_RANGES.sql, *_FIND_TIME_RANGES.bind(parameters))
    known = ((up_to, within) for up_to, within in found if up_to <= session.last_seq)
    runs = join_runs(known, session.last_seq)
    counts = [await _count_run(connection, session, query, place, run, parameters) for run in runs]
    met = [run for run, count in zip(runs, counts, strict=True) if count]
    if not met:
        return [], 0
    bounds = {
        "after_seq": max(parameters["after_seq"], met[0].after_seq),
        "before_seq": min(parameters["before_seq"], met[-1].up_to_seq + 1),
    }
    return await connection.fetch(page.sql, *page.bind(parameters | bounds)), sum(counts)


async def _count_run(
    connection: Connection,
    session: Session,
    query: MessageQuery,
    place: Place,
    run: SeqRun,
    parameters: dict[str, Any],
) -> int:
    if run.is_within and place == "heard":
        before = await count_heard(connection, session.id, parameters, up_to_seq=run.after_seq)
        return (
            await count_heard(connection, session.id, parameters, up_to_seq=run.up_to_seq) - before
        )
    if run.is_within and query.visibility is None:
        return run.up_to_seq - run.after_seq  # an admin sees all, and seqs have no gaps
    bounds = {"after_seq": run.after_seq, "before_seq": run.up_to_seq + 1}
    count = _COUNTS[place]
    return int(await connection.fetchval(count.sql, *count.bind(parameters | bounds)))


def _page_parameters(session: Session, caller: Caller, query: MessageQuery) -> dict[str, Any]:
    start_time, end_time, parent = query.start_time, query.end_time, query.parent_message_id
    end = session.last_seq + 1
    return {
        "session_id": session.id,
        "after_seq": 0 if query.after_seq is None else clamp(query.after_seq),
        "before_seq": end if query.before_seq is None else min(clamp(query.before_seq), end),
        "limit": clamp(query.limit + 1),
        "max_bytes": page_budget(query.limit),
        "offset": clamp(query.offset),
        "reach": clamp(query.offset + query.limit + 1),
        "is_admin": caller.is_admin,
        "sender": query.sender,
        "visibility": query.visibility,
        "start_time": -MAX_INTEGER if start_time is None else encode_time(start_time),
        "end_time": MAX_INTEGER if end_time is None else encode_time(end_time),
        "parent_message_id": None if parent is None else clamp(parent),
    }


async def read_log(
    connection: Connection,
    session_id: str,
    *,
    after_seq: int,
    before_seq: int | None = None,
    limit: int,
    guard: SessionGuard,
) -> list[Message]:
    await use_session(connection, session_id, guard)
    parameters = {
        "session_id": session_id,
        "after_seq": clamp(after_seq),
        "before_seq": MAX_INTEGER if before_seq is None else clamp(before_seq),
        "limit": clamp(limit),
        "max_bytes": page_budget(limit),
    }
    statement = _READ_LOG if before_seq is None else _READ_LOG_BACK
    found = await connection.fetch(statement.sql, *statement.bind(parameters))
    rows, _ = take_page(found, limit, MESSAGE_WIDE)
    if before_seq is not None:
        rows.reverse()
    return [to_message(row) for row in rows]


async def count_by_sender(
    connection: Connection,
    session_id: str,
    caller: Caller,
    *,
    after_seq: int,
    guard: SessionGuard,
) -> list[SenderCount]:
    await use_session(connection, session_id, guard)
    statement = _COUNT_ALL_BY_SENDER if caller.is_admin else _COUNT_HEARD_BY_SENDER
    parameters = {
        "session_id": session_id,
        "after_seq": clamp(after_seq),
        **names_of_caller(caller),
    }
    rows = await connection.fetch(statement.sql, *statement.bind(parameters))
    return [SenderCount(*row) for row in rows if row[1]]
