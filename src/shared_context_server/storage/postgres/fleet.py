"""The overview of all agents on PostgreSQL."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Sequence

from shared_context_server.models import Caller
from shared_context_server.storage.contract.fleet import (
    MAX_SURVEYED,
    Survey,
    SurveyQuery,
    UnreadIn,
)
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import Subject, reads, reads_snapshot
from shared_context_server.storage.postgres.sessions import CAN_SEE_SESSION
from shared_context_server.storage.rules.fleet import (
    ACTIVITY,
    AGENT_RANK,
    SURVEYED,
    list_agent_ids,
    make_survey,
    survey_parameters,
)

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
            (SELECT l.name FROM tasks AS t, json_array_elements_text(t.depends_on::json) AS d (value), leases AS l
             WHERE w.waits = 'task' AND t.session_id = w.waits_session_id
               AND t.id = substr(w.waits_name, 6)::bigint AND t.state = 'blocked'
               AND l.session_id = t.session_id AND l.name = 'task:' || d.value AND {_HELD}
               AND (l.holder, l.instance) <> (w.agent_id, w.instance)
             ORDER BY l.expires_at DESC, l.name LIMIT 1)
        ) END AS blocking
        FROM seen AS w
    ), classified AS MATERIALIZED (
        SELECT {columns}, {ACTIVITY.format(least="least", greatest="greatest")} AS activity
        FROM stopped AS c
    )"""


_NEWEST = "SELECT * FROM instances ORDER BY last_seen DESC LIMIT :surveyed"
_NARROW = "c.agent_id, c.last_seen, c.status, c.blocking, c.waits_since"
_NAMED = """
        SELECT * FROM instances AS i WHERE i.agent_id = ANY(:agent_ids::text[])"""

# Narrow rows, because there may be many. MATERIALIZED, because three parts use them.
_SURVEY = Statement(f"""{_classify(_NEWEST, _NARROW)}, ranked AS MATERIALIZED (
        SELECT agent_id, {AGENT_RANK} AS rank, max(last_seen) AS last_seen,
            bool_or(strpos(agent_id, :contains) > 0 OR strpos(status, :contains) > 0) AS is_named
        FROM classified GROUP BY agent_id
    )
    SELECT 'count', rank, count(*), NULL::text FROM ranked GROUP BY rank
    UNION ALL
    SELECT * FROM (
        SELECT 'agent', rank, last_seen, agent_id FROM ranked
        WHERE is_named AND (:rank::int IS NULL OR rank = :rank)
        ORDER BY rank, last_seen DESC, agent_id LIMIT :limit OFFSET :offset
    ) AS page
    UNION ALL
    SELECT * FROM (
        SELECT 'block', 0, coalesce(waits_since, last_seen), agent_id FROM classified
        WHERE blocking IS NOT NULL ORDER BY 3, agent_id LIMIT :blocks
    ) AS blocks""")
_DESCRIBE = Statement(f"""{_classify(_NAMED, "c.*")}
    SELECT {SURVEYED}
    FROM classified AS c
    LEFT JOIN agents ON agents.agent_id = c.agent_id
    LEFT JOIN leases AS l
        ON c.blocking IS NOT NULL AND l.session_id = c.waits_session_id AND l.name = c.blocking
    LEFT JOIN sessions AS s ON s.id = c.session_id AND {_VISIBLE}
    ORDER BY c.last_seen DESC, c.instance""")
_COUNT_INSTANCES = Statement(
    "SELECT count(*) FROM (SELECT 1 FROM instances LIMIT :surveyed + 1) AS counted"
)

_UP_TO = """coalesce((
    SELECT ordinal FROM audience AS a
    WHERE a.session_id = c.session_id AND a.name = {name} AND a.seq <= {seq} ORDER BY a.seq DESC LIMIT 1
), 0)"""
_AFTER = f"{_UP_TO.format(name='{name}', seq='9000000000000000')} - {_UP_TO.format(name='{name}', seq='greatest(c.seq, s.first_seq - 1)')}"
_OWN = "asked.name || chr(31) || c.agent_id"
_COUNT_UNREAD = Statement(f"""
    SELECT c.session_id, c.agent_id,
        sum({_AFTER.format(name="asked.name")} - ({_AFTER.format(name=_OWN)}))
    FROM unnest(:session_ids::text[], :agent_ids::text[], :names::text[])
        AS asked (session_id, agent_id, name)
    JOIN cursors AS c USING (session_id, agent_id) JOIN sessions AS s ON s.id = c.session_id
    GROUP BY c.session_id, c.agent_id""")
_LIST_TITLES = Statement("""
    SELECT t.session_id, t.id, t.title FROM unnest(:session_ids::text[], :ids::bigint[]) AS asked (session_id, id)
    JOIN tasks AS t USING (session_id, id)""")


class Fleet(Subject):
    """The overview of all agents. See contract/fleet.py."""

    @reads_snapshot
    async def survey(self, connection: Connection, caller: Caller, query: SurveyQuery) -> Survey:
        parameters = survey_parameters(caller, query)
        places = await connection.fetch(*_SURVEY(**parameters))
        parameters["agent_ids"] = list_agent_ids(places)
        instances = await connection.fetch(*_DESCRIBE(**parameters))
        count = await connection.fetchval(*_COUNT_INSTANCES(**parameters))
        return make_survey(places, instances, query, is_complete=count <= MAX_SURVEYED)

    @reads
    async def count_unread(
        self, connection: Connection, asked: Sequence[UnreadIn]
    ) -> dict[tuple[str, str], int]:
        named = [(one.session_id, one.agent_id, name) for one in asked for name in one.names]
        session_ids, agent_ids, names = ([row[at] for row in named] for at in range(3))
        rows = await connection.fetch(
            *_COUNT_UNREAD(session_ids=session_ids, agent_ids=agent_ids, names=names)
        )
        return {(row[0], row[1]): int(row[2]) for row in rows}

    @reads
    async def list_task_titles(
        self, connection: Connection, tasks: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], str]:
        session_ids, ids = [session_id for session_id, _ in tasks], [number for _, number in tasks]
        rows = await connection.fetch(*_LIST_TITLES(session_ids=session_ids, ids=ids))
        return {(row[0], row[1]): row[2] for row in rows}
