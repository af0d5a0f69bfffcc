"""What an instance is doing, as SQL and as parameters that both stores use; and a survey from its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from shared_context_server.models import Activity, Caller, Lease
from shared_context_server.storage.codec import (
    Row,
    decode_time,
    encode_time,
    to_instance,
)
from shared_context_server.storage.contract.fleet import (
    MAX_BLOCKS,
    MAX_SURVEYED,
    Survey,
    SurveyedAgent,
    SurveyedInstance,
    SurveyQuery,
)
from shared_context_server.storage.rules.audience import session_rights

_LISTED = tuple(Activity)  # in the order of the listing
_BY_STRENGTH = (
    Activity.BLOCKED,
    Activity.WORKING,
    Activity.WAITING,
    Activity.SILENT,
    Activity.IDLE,
    Activity.AWAY,
)
"""The first that an instance is in decides for its agent: an agent that works in one thread is not
silent because another one has ended."""

ACTIVITY = f"""CASE
    WHEN c.blocking IS NOT NULL OR c.state = 'blocked'
        THEN {_BY_STRENGTH.index(Activity.BLOCKED)}
    WHEN c.waits IS NOT NULL THEN {_BY_STRENGTH.index(Activity.WAITING)}
    WHEN c.last_seen < :away_before THEN {_BY_STRENGTH.index(Activity.AWAY)}
    WHEN c.state IN ('idle', 'done') THEN {_BY_STRENGTH.index(Activity.IDLE)}
    WHEN c.last_seen < :now - {{greatest}}(
        {{least}}(:silent_factor * c.usual_pause, :silent_max), :silent_min
    ) THEN {_BY_STRENGTH.index(Activity.SILENT)}
    ELSE {_BY_STRENGTH.index(Activity.WORKING)}
END"""
"""The place in _BY_STRENGTH of an instance `c`. least and greatest: the functions of that name."""

AGENT_RANK = (
    "CASE min(activity) "
    + " ".join(
        f"WHEN {place} THEN {_LISTED.index(activity)}"
        for place, activity in enumerate(_BY_STRENGTH)
    )
    + " END"
)
"""The place in the listing of the agent whose instances are grouped."""

SURVEYED = """
    c.agent_id, c.instance, c.last_seen, c.last_action, c.state, c.status, c.since, c.waits,
    c.waits_session_id, c.waits_name, c.waits_since, coalesce(agents.agent_type, ''), c.activity, c.session_id,
    s.purpose, c.blocking, l.holder, l.instance, l.fencing_token, l.acquired_at,
    l.expires_at"""
"""The columns of an instance `c`, of which to_instance reads the first."""


def survey_parameters(caller: Caller, query: SurveyQuery) -> dict[str, Any]:
    return {
        **session_rights(caller),
        "now": encode_time(query.now),
        "waits_after": encode_time(query.waits_after),
        "away_before": encode_time(query.away_before),
        "silent_factor": query.silent_factor,
        "silent_min": query.silent_min // timedelta(microseconds=1),
        "silent_max": query.silent_max // timedelta(microseconds=1),
        "rank": None if query.activity is None else _LISTED.index(query.activity),
        "contains": query.contains,
        "limit": query.limit + 1,
        "offset": query.offset,
        "surveyed": MAX_SURVEYED,
        "blocks": MAX_BLOCKS,
    }


def list_agent_ids(places: Sequence[Row]) -> list[str]:
    """Return the agents of the page and of the blocks, each once. A place: the part of the survey
    ('count', 'agent' or 'block'), the rank, the number or a time, and the agent."""
    return list(dict.fromkeys(row[3] for row in places if row[0] != "count"))


def make_survey(
    places: Sequence[Row], instances: Sequence[Row], query: SurveyQuery, *, is_complete: bool
) -> Survey:
    """Return the survey of these places, with the instances of their agents."""
    counts = dict.fromkeys(_LISTED, 0)
    counts |= {_LISTED[row[1]]: row[2] for row in places if row[0] == "count"}
    of_agent: defaultdict[str, list[SurveyedInstance]] = defaultdict(list)
    for row in instances:
        of_agent[row[0]].append(_to_surveyed(row))
    listed = sorted(
        (row for row in places if row[0] == "agent"), key=lambda row: (row[1], -row[2], row[3])
    )
    blocked = dict.fromkeys(row[3] for row in places if row[0] == "block")
    blocks = [one for name in blocked for one in of_agent[name] if one.blocked_by is not None]
    blocks.sort(key=lambda one: one.instance.waits_since or one.instance.last_seen)
    return Survey(
        counts=counts,
        agents=[
            SurveyedAgent(row[3], _LISTED[row[1]], of_agent[row[3]])
            for row in listed[: query.limit]
        ],
        has_more=len(listed) > query.limit,
        blocks=blocks[:MAX_BLOCKS],
        is_complete=is_complete,
    )


def _to_surveyed(row: Row) -> SurveyedInstance:
    agent_type, activity, session_id, purpose, blocking = row[11:16]
    holder, holder_instance, fencing_token, acquired_at, expires_at = row[16:]
    instance = to_instance(row)
    blocked_by = None
    if blocking is not None:
        assert instance.waits_for is not None
        blocked_by = Lease(
            session_id=instance.waits_for.session_id,
            name=blocking,
            holder=holder,
            fencing_token=fencing_token,
            acquired_at=decode_time(acquired_at),
            expires_at=decode_time(expires_at),
            instance=holder_instance,
        )
    return SurveyedInstance(
        instance=instance,
        agent_type=agent_type,
        activity=_BY_STRENGTH[activity],
        session_id=None if purpose is None else session_id,
        purpose=purpose,
        blocked_by=blocked_by,
    )
