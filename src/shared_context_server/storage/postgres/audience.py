"""SQL for the messages that a caller may see: policy.can_see_message, as rows of `audience`.

A message has a row in `audience` for each key that it is addressed to (see rules/audience.py). The
schema's trigger messages_are_addressed writes them. A caller matches at most one row of a message,
so the rows of its three keys can be counted separately and added up.
"""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared_context_server.storage.codec import MAX_INTEGER
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement

_NAMES = (":name_public::text", ":name_agent_only::text", ":name_private::text")

VISIBLE = """(:is_admin OR EXISTS (
    SELECT 1 FROM audience
    WHERE audience.session_id = m.session_id AND audience.seq = m.seq
      AND audience.name = CASE m.visibility
        WHEN 'public' THEN :name_public::text
        WHEN 'agent_only' THEN :name_agent_only::text
        WHEN 'private' THEN :name_private::text
      END
))"""
"""Whether the caller sees message `m`. Wants audience_keys, and :is_admin."""

VISIBLE_SEQS = " UNION ALL ".join(
    f"""
    SELECT seq FROM audience
    WHERE session_id = :session_id AND seq > :after_seq AND seq < :before_seq
      AND created_at BETWEEN :start_time AND :end_time AND name = {name}"""
    for name in _NAMES
)
"""The seqs that a caller who is no admin sees."""


def visible_seqs_page(order: str) -> str:
    """Return SQL for the seqs of VISIBLE_SEQS on one page. From each key's index it reads no more
    than the page can hold."""
    pages = " UNION ALL ".join(
        f"({part} ORDER BY seq {order} LIMIT :reach)" for part in VISIBLE_SEQS.split(" UNION ALL ")
    )
    return f"SELECT seq FROM ({pages}) AS visible ORDER BY seq {order} LIMIT :limit OFFSET :offset"


def tally_query(session_id: str, up_to_seq: str, sender: str | None = None) -> str:
    """Return a query for one row, `count`, `last_seq` (0: none) and `newest_at`: what the keys see
    of a session, given as SQL, up to and including a seq. With `sender`, SQL too, only this agent's
    messages. It costs three index look-ups. Messages that were removed count too. So the present number
    is the difference of two tallies, of which the first is for the session's first_seq - 1 or later."""
    suffix = "" if sender is None else f" || chr(31) || {sender}"
    latest = " UNION ALL ".join(
        f"""(
        SELECT seq, ordinal, created_at FROM audience
        WHERE session_id = {session_id} AND seq <= {up_to_seq} AND name = {name}{suffix}
        ORDER BY seq DESC LIMIT 1
    )"""
        for name in _NAMES
    )
    return f"""
    SELECT coalesce(sum(ordinal), 0)::bigint AS count, coalesce(max(seq), 0) AS last_seq,
           (array_agg(created_at ORDER BY seq DESC))[1] AS newest_at
    FROM ({latest}) AS latest"""


def tally_of_sender(sender: str, up_to_seq: str) -> str:
    """Return an SQL expression: how many messages of a sender the keys see up to a seq."""
    return (
        "("
        + " + ".join(
            f"""coalesce((
            SELECT ordinal FROM audience
            WHERE session_id = :session_id AND seq <= {up_to_seq}
              AND name = {name} || chr(31) || {sender}
            ORDER BY seq DESC LIMIT 1
        ), 0)"""
            for name in _NAMES
        )
        + ")"
    )


_TALLY = Statement(tally_query(":session_id", ":up_to_seq"))
# One statement, so that what is removed meanwhile does not count in one of the tallies only.
_COUNT = Statement(f"""
    SELECT greatest(0, up_to.count - before.count) FROM sessions AS s
    CROSS JOIN LATERAL ({tally_query(":session_id", ":up_to_seq")}) AS up_to
    CROSS JOIN LATERAL (
        {tally_query(":session_id", "greatest(:after_seq, s.first_seq - 1)")}
    ) AS before
    WHERE s.id = :session_id""")


async def count_visible(
    connection: Connection,
    session_id: str,
    keys: Mapping[str, Any],
    *,
    after_seq: int,
    up_to_seq: int,
) -> int:
    """Return how many messages of the session these keys see after `after_seq`, up to `up_to_seq`."""
    parameters = {
        **keys,
        "session_id": session_id,
        "after_seq": after_seq,
        "up_to_seq": up_to_seq,
    }
    count: int | None = await connection.fetchval(*_COUNT(**parameters))
    return count or 0


async def find_last_visible_seq(
    connection: Connection, session_id: str, keys: Mapping[str, str | None]
) -> int:
    """Return the seq of the newest message of the session that these keys see, or saw before it was
    removed; 0 if there is none."""
    parameters = {"session_id": session_id, "up_to_seq": MAX_INTEGER, **keys}
    row = await connection.fetchrow(*_TALLY(**parameters))
    assert row is not None
    last_seq: int = row["last_seq"]
    return last_seq
