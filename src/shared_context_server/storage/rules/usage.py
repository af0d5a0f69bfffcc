"""Compare the counters of what is stored with what is stored.

Triggers keep the counters, in the transaction of each write, so they are wrong only if something else has
written to the database, or an error of a trigger. The comparison is one statement, which sees one
snapshot. What it finds is the difference, and adding a difference is right whatever is written meanwhile:
triggers add to the same counters.
"""

from __future__ import annotations

from collections.abc import Callable

from shared_context_server.storage.contract import Miscount

MAX_MISCOUNTS = 10_000  # found at once

# `first_seq` of a participant whose row is missing is that of its first message that is left.
ADD_MISSING_PARTICIPANT = """
    INSERT INTO participants (session_id, agent_id, first_seq)
    SELECT session_id, sender, min(seq) FROM messages
    WHERE session_id = :session_id AND sender = :agent_id
      AND EXISTS (SELECT 1 FROM sessions WHERE id = :session_id AND status <> 'deleting')
    GROUP BY session_id, sender
    ON CONFLICT (session_id, agent_id) DO NOTHING"""
MEND_PARTICIPANT = """
    UPDATE participants SET messages = messages + :messages, bytes = bytes + :bytes
    WHERE session_id = :session_id AND agent_id = :agent_id"""
ADD_MISSING_USAGE = """
    INSERT INTO usage (session_id, agent_id)
    SELECT CAST(:session_id AS TEXT), CAST(:agent_id AS TEXT)
    WHERE CAST(:session_id AS TEXT) = ''
       OR EXISTS (SELECT 1 FROM sessions WHERE id = :session_id AND status <> 'deleting')
    ON CONFLICT (session_id, agent_id) DO NOTHING"""
MEND_USAGE = """
    UPDATE usage SET sessions = sessions + :sessions,
        memory_entries = memory_entries + :memory_entries, bytes = bytes + :bytes
    WHERE session_id = :session_id AND agent_id = :agent_id"""


def find_statements(miscount: Miscount) -> tuple[str, str]:
    """Return the statements that mend it; their parameters are its fields."""
    if miscount.counter == "participants":
        return ADD_MISSING_PARTICIPANT, MEND_PARTICIPANT
    return ADD_MISSING_USAGE, MEND_USAGE


def compare_counters(size: Callable[[str], str]) -> str:
    """Return the statement that finds up to MAX_MISCOUNTS rows of Miscount. `size`: SQL for the bytes of
    a text column in UTF-8. A deleted session has no counters, though its rows are removed later."""

    def sizes(*columns: str) -> str:
        return " + ".join(map(size, columns))

    return f"""
    SELECT counter, session_id, agent_id,
           CAST(sum(sessions) AS BIGINT), CAST(sum(messages) AS BIGINT),
           CAST(sum(memory_entries) AS BIGINT), CAST(sum(bytes) AS BIGINT)
    FROM (
        SELECT 'participants' AS counter, session_id, sender AS agent_id, 0 AS sessions,
               count(*) AS messages, 0 AS memory_entries,
               sum({sizes("content", "metadata", "recipients")}) AS bytes
        FROM messages GROUP BY session_id, sender
        UNION ALL SELECT 'participants', session_id, agent_id, 0, -messages, 0, -bytes
        FROM participants
        UNION ALL SELECT 'usage', id, created_by, 1, 0, 0, {sizes("purpose", "metadata")}
        FROM sessions
        UNION ALL SELECT 'usage', session_id, updated_by, 0, 0, 1,
                         size_bytes + {sizes("key", "metadata")}
        FROM memory
        UNION ALL SELECT 'usage', session_id, created_by, 0, 0, 0,
                         {sizes("title", "body", "metadata", "result")}
        FROM tasks
        UNION ALL SELECT 'usage', session_id, agent_id, -sessions, 0, -memory_entries, -bytes
        FROM usage
    ) AS compared
    WHERE session_id = '' OR EXISTS (
        SELECT 1 FROM sessions WHERE id = compared.session_id AND status <> 'deleting')
    GROUP BY counter, session_id, agent_id
    HAVING sum(sessions) <> 0 OR sum(messages) <> 0 OR sum(memory_entries) <> 0 OR sum(bytes) <> 0
    ORDER BY session_id, agent_id, counter LIMIT {MAX_MISCOUNTS}"""  # noqa: S608 - our columns
