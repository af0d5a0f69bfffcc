"""The overview of all agents on SQLite."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from shared_context_server.models import Caller
from shared_context_server.storage.contract.fleet import (
    MAX_SURVEYED,
    Survey,
    SurveyQuery,
    UnreadIn,
)
from shared_context_server.storage.rules.fleet import (
    ACTIVITY,
    AGENT_RANK,
    SURVEYED,
    list_agent_ids,
    make_survey,
    survey_parameters,
)
from shared_context_server.storage.sqlite.engine.work import Subject, reads
from shared_context_server.storage.sqlite.sessions import CAN_SEE_SESSION

_HELD = "l.holder IS NOT NULL AND l.expires_at > :now"
_VISIBLE = f"s.status <> 'deleting' AND {CAN_SEE_SESSION}"


def _classify(instances: str, columns: str) -> str:
    """Return common table expressions; the last, `classified`, has these columns of the instances `c`
    that a query finds, and what each is doing."""
    return f"""
    WITH found AS (
        {instances}
    ), seen AS (
        SELECT i.*, CASE
            WHEN i.waits_for IS NOT NULL AND i.last_seen >= :waits_after AND (
                i.waits_session_id = '' OR EXISTS (
                    SELECT 1 FROM sessions AS s WHERE s.id = i.waits_session_id AND {_VISIBLE}
                )
            ) THEN i.waits_for
        END AS waits
        FROM found AS i
    ), stopped AS (
        SELECT w.*, CASE WHEN w.waits IN ('lease', 'task') AND w.waits_name <> '' THEN coalesce(
            (SELECT l.name FROM leases AS l
             WHERE l.session_id = w.waits_session_id AND l.name = w.waits_name AND {_HELD}
               AND (l.holder, l.instance) <> (w.agent_id, w.instance)),
            (SELECT l.name FROM tasks AS t, json_each(t.depends_on) AS d, leases AS l
             WHERE w.waits = 'task' AND t.session_id = w.waits_session_id
               AND t.id = CAST(substr(w.waits_name, 6) AS INTEGER) AND t.state = 'blocked'
               AND l.session_id = t.session_id AND l.name = 'task:' || d.value AND {_HELD}
               AND (l.holder, l.instance) <> (w.agent_id, w.instance)
             ORDER BY l.expires_at DESC, l.name LIMIT 1)
        ) END AS blocking
        FROM seen AS w
    ), classified AS MATERIALIZED (
        SELECT {columns}, {ACTIVITY.format(least="min", greatest="max")} AS activity
        FROM stopped AS c
    )"""


_NEWEST = "SELECT * FROM instances ORDER BY last_seen DESC LIMIT :surveyed"
_NARROW = "c.agent_id, c.last_seen, c.status, c.blocking, c.waits_since"
_NAMED = """
        SELECT i.* FROM json_each(:agent_ids) AS asked
        CROSS JOIN instances AS i ON i.agent_id = asked.value"""

# Narrow rows, because there may be many. MATERIALIZED, because three parts use them.
_SURVEY = f"""{_classify(_NEWEST, _NARROW)}, ranked AS MATERIALIZED (
        SELECT agent_id, {AGENT_RANK} AS rank, max(last_seen) AS last_seen,
            max(:contains = '' OR instr(agent_id, :contains) > 0
                OR instr(status, :contains) > 0) AS is_named
        FROM classified GROUP BY agent_id
    )
    SELECT 'count', rank, count(*), NULL FROM ranked GROUP BY rank
    UNION ALL
    SELECT * FROM (
        SELECT 'agent', rank, last_seen, agent_id FROM ranked
        WHERE is_named AND (:rank IS NULL OR rank = :rank)
        ORDER BY rank, last_seen DESC, agent_id LIMIT :limit OFFSET :offset
    )
    UNION ALL
    SELECT * FROM (
        SELECT 'block', 0, coalesce(waits_since, last_seen), agent_id FROM classified
        WHERE blocking IS NOT NULL ORDER BY 3, agent_id LIMIT :blocks
    )"""
_DESCRIBE = f"""{_classify(_NAMED, "c.*")}
    SELECT {SURVEYED}
    FROM classified AS c
    LEFT JOIN agents ON agents.agent_id = c.agent_id
    LEFT JOIN leases AS l
        ON c.blocking IS NOT NULL AND l.session_id = c.waits_session_id AND l.name = c.blocking
    LEFT JOIN sessions AS s ON s.id = c.session_id AND {_VISIBLE}
    ORDER BY c.last_seen DESC, c.instance"""
_COUNT_INSTANCES = "SELECT count(*) FROM (SELECT 1 FROM instances LIMIT :surveyed + 1)"

_UP_TO = """coalesce((
    SELECT ordinal FROM audience AS a
    WHERE a.session_id = c.session_id AND a.name = {name} AND a.seq <= {seq} ORDER BY a.seq DESC LIMIT 1
), 0)"""
_AFTER = f"{_UP_TO.format(name='{name}', seq='9e15')} - {_UP_TO.format(name='{name}', seq='max(c.seq, s.first_seq - 1)')}"
_OWN = "asked.value ->> 2 || char(31) || c.agent_id"
_COUNT_UNREAD = f"""
    SELECT c.session_id, c.agent_id,
        sum({_AFTER.format(name="asked.value ->> 2")} - ({_AFTER.format(name=_OWN)}))
    FROM json_each(:asked) AS asked CROSS JOIN cursors AS c
        ON c.session_id = asked.value ->> 0 AND c.agent_id = asked.value ->> 1
    CROSS JOIN sessions AS s ON s.id = c.session_id
    GROUP BY c.session_id, c.agent_id"""
_LIST_TITLES = """
    SELECT t.session_id, t.id, t.title FROM json_each(:tasks) AS asked CROSS JOIN tasks AS t
        ON t.session_id = asked.value ->> 0 AND t.id = asked.value ->> 1"""


class Fleet(Subject):
    """The overview of all agents. See contract/fleet.py."""

    @reads
    def survey(self, connection: sqlite3.Connection, caller: Caller, query: SurveyQuery) -> Survey:
        parameters = survey_parameters(caller, query)
        places = connection.execute(_SURVEY, parameters).fetchall()
        parameters["agent_ids"] = json.dumps(list_agent_ids(places))
        instances = connection.execute(_DESCRIBE, parameters).fetchall()
        (count,) = connection.execute(_COUNT_INSTANCES, parameters).fetchone()
        return make_survey(places, instances, query, is_complete=count <= MAX_SURVEYED)

    @reads
    def count_unread(
        self, connection: sqlite3.Connection, asked: Sequence[UnreadIn]
    ) -> dict[tuple[str, str], int]:
        named = [(one.session_id, one.agent_id, name) for one in asked for name in one.names]
        rows = connection.execute(_COUNT_UNREAD, {"asked": json.dumps(named)})
        return {(session_id, agent_id): count for session_id, agent_id, count in rows}

    @reads
    def list_task_titles(
        self, connection: sqlite3.Connection, tasks: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], str]:
        rows = connection.execute(_LIST_TITLES, {"tasks": json.dumps(list(tasks))})
        return {(session_id, task_id): title for session_id, task_id, title in rows}
