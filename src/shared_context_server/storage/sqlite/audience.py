"""SQL for the messages that a caller may see: policy.can_see_message, as rows of `audience`.

A message has a row in `audience` for each key that it is addressed to (see rules/audience.py). The
schema's trigger messages_are_addressed writes them. A caller has three keys, one of each kind, and
a message has keys of one kind. So a caller matches at most one row of a message, and the rows of
the three keys can be counted separately and added up.
"""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared_context_server.storage.codec import MAX_INTEGER, decode_time

VISIBLE = """(:is_admin OR EXISTS (
    SELECT 1 FROM audience
    WHERE audience.session_id = m.session_id AND audience.seq = m.seq
      AND audience.name = CASE m.visibility
        WHEN 'public' THEN :name_public
        WHEN 'agent_only' THEN :name_agent_only
        WHEN 'private' THEN :name_private
      END
))"""
"""Whether the caller sees message `m`. Wants audience_keys, and :is_admin."""

_VISIBLE_SEQS_BY_KEY = """
    SELECT seq FROM audience
    WHERE session_id = :session_id AND seq > :after_seq AND seq < :before_seq
      AND created_at BETWEEN :start_time AND :end_time AND name = """
VISIBLE_SEQS = " UNION ALL ".join(
    f"{_VISIBLE_SEQS_BY_KEY}{name}"
    for name in (":name_public", ":name_agent_only", ":name_private")
)
"""The seqs that a caller who is no admin sees. Ordered by seq this merges three index ranges."""

_LATEST_AS = """
    SELECT * FROM (
        SELECT seq, ordinal, created_at FROM audience
        WHERE session_id = :session_id AND seq <= :up_to_seq AND name = {name}
        ORDER BY seq DESC LIMIT 1
    )"""
# With a single max(), SQLite takes bare columns from the row with the maximum.
_TALLY = f"""
    SELECT coalesce(sum(ordinal), 0), coalesce(max(seq), 0), created_at FROM (
        {_LATEST_AS.format(name=":name_public")} UNION ALL
        {_LATEST_AS.format(name=":name_agent_only")} UNION ALL
        {_LATEST_AS.format(name=":name_private")}
    )"""


def tally_of_sender(sender: str, up_to_seq: str | int) -> str:
    """Return an SQL expression: how many messages of a sender the caller sees up to a seq."""
    return (
        "("
        + " + ".join(
            f"""coalesce((
            SELECT ordinal FROM audience
            WHERE session_id = :session_id AND seq <= {up_to_seq}
              AND name = {name} || char(31) || {sender}
            ORDER BY seq DESC LIMIT 1
        ), 0)"""
            for name in (":name_public", ":name_agent_only", ":name_private")
        )
        + ")"
    )


@dataclass(frozen=True, slots=True)
class Tally:
    """How many messages a caller sees, and the newest one's seq (0: none) and time."""

    count: int
    last_seq: int
    newest_at: datetime | None


def tally_visible(
    connection: sqlite3.Connection,
    session_id: str,
    keys: Mapping[str, Any],
    *,
    up_to_seq: int = MAX_INTEGER,
) -> Tally:
    """Tally what these keys see up to and including a seq, with three index look-ups.

    Messages that were removed count too. So the present number is the difference of two tallies, of
    which the first is for the session's removed_up_to or a later seq.
    """
    count, last_seq, newest_at = connection.execute(
        _TALLY, {**keys, "session_id": session_id, "up_to_seq": up_to_seq}
    ).fetchone()
    return Tally(count, last_seq, None if newest_at is None else decode_time(newest_at))
