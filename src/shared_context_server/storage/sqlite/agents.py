"""The agents that the server has seen, and their presence, on SQLite."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

from shared_context_server.models import Agent, AgentState, Caller, Instance, InstanceSeen
from shared_context_server.storage.codec import (
    AGENT,
    MAX_INTEGER,
    clamp,
    decode_optional_time,
    encode_time,
    from_instance_seen,
    to_agent,
    to_instance,
)
from shared_context_server.storage.contract import (
    MAX_INSTANCES,
    PresenceChange,
    SessionGuard,
    Usage,
)
from shared_context_server.storage.contract.agents import MAX_PAUSE
from shared_context_server.storage.rules.audience import audience_keys, session_rights
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes
from shared_context_server.storage.sqlite.sessions import CAN_SEE_SESSION, use_session

_TOUCH = """
    INSERT INTO agents (agent_id, agent_type, first_seen, last_seen, is_around)
    VALUES (:agent_id, :agent_type, :first_seen, :last_seen, TRUE)
    ON CONFLICT (agent_id) DO UPDATE SET
        is_around = TRUE,
        agent_type = iif(excluded.last_seen >= last_seen, excluded.agent_type, agent_type),
        last_seen = max(last_seen, excluded.last_seen)"""
_LIST_ABSENT = """
    SELECT named.value FROM json_each(:agent_ids) AS named
    LEFT JOIN agents ON agents.agent_id = named.value
    WHERE agents.is_around IS NOT TRUE"""
_GONE = "is_around AND last_seen < :gone_before"
_FIND_GONE = f"SELECT 1 FROM agents INDEXED BY agents_around WHERE {_GONE} LIMIT 1"
_LEAVE = f"UPDATE agents SET is_around = FALSE WHERE {_GONE} RETURNING agent_id"
_OLDER = """
    (last_seen, agent_id) < (:before_at, :before_id)
    ORDER BY last_seen DESC, agent_id DESC LIMIT :limit"""
_LIST = f"SELECT {AGENT} FROM agents WHERE {_OLDER}"
_LIST_OF_SESSION = f"""
    SELECT {AGENT} FROM agents WHERE agent_id IN (
        SELECT value FROM json_each(:members)
        UNION ALL SELECT agent_id FROM participants WHERE session_id = :session_id
    ) AND {_OLDER}"""
_LIST_VISIBLE_IN_SESSION = f"""
    SELECT {AGENT} FROM agents WHERE agent_id IN (
        SELECT value FROM json_each(:members)
        UNION ALL SELECT agent_id FROM writers
        WHERE session_id = :session_id AND name IN (:name_public, :name_agent_only, :name_private)
    ) AND {_OLDER}"""
_NOTE_INSTANCE = """
    INSERT INTO instances (
        agent_id, instance, last_seen, last_action, waits_for, waits_session_id, waits_name,
        waits_since, session_id)
    VALUES (
        :agent_id, :instance, :last_seen, :last_action, :waits_for, :waits_session_id, :waits_name,
        :waits_since, :session_id)
    ON CONFLICT (agent_id, instance) DO UPDATE SET
        last_action = iif(excluded.last_action = '', last_action, excluded.last_action),
        usual_pause = CASE
            WHEN excluded.last_seen = last_seen THEN usual_pause
            WHEN usual_pause = 0 THEN min(excluded.last_seen - last_seen, :max_pause)
            ELSE (7 * usual_pause + min(excluded.last_seen - last_seen, :max_pause)) / 8
        END,
        last_seen = excluded.last_seen,
        session_id = iif(excluded.session_id = '', session_id, excluded.session_id),
        waits_since = iif(
            (waits_for, waits_session_id, waits_name) IS
                (excluded.waits_for, excluded.waits_session_id, excluded.waits_name),
            waits_since, excluded.waits_since),
        waits_for = excluded.waits_for, waits_session_id = excluded.waits_session_id,
        waits_name = excluded.waits_name
    WHERE excluded.last_seen >= last_seen"""
# A status that was set since the call was noted has a later time.
_NOTE_SESSION = """
    UPDATE instances SET session_id = :session_id
    WHERE agent_id = :agent_id AND instance = :instance AND last_seen > :last_seen
      AND :session_id <> ''"""
_FORGET_INSTANCES = "DELETE FROM instances WHERE last_seen < :forget_before"
_FORGET_SURPLUS = """
    DELETE FROM instances WHERE agent_id = :agent_id AND last_seen < (
        SELECT last_seen FROM instances WHERE agent_id = :agent_id
        ORDER BY last_seen DESC LIMIT 1 OFFSET :kept)"""
_SET_STATUS = """
    INSERT INTO instances (agent_id, instance, last_seen, last_action, state, status, since)
    VALUES (:agent_id, :instance, :now, 'set_status', :state, :status, :since)
    ON CONFLICT (agent_id, instance) DO UPDATE SET
        last_seen = max(last_seen, excluded.last_seen), last_action = excluded.last_action,
        since = iif((state, status) = (excluded.state, excluded.status), since, excluded.since),
        state = excluded.state, status = excluded.status
    RETURNING since"""
_LIST_INSTANCES = f"""
    SELECT i.agent_id, i.instance, i.last_seen, i.last_action, i.state, i.status, i.since,
        CASE WHEN (
        i.waits_session_id = '' OR EXISTS (
            SELECT 1 FROM sessions AS s
            WHERE s.id = i.waits_session_id AND s.status <> 'deleting' AND {CAN_SEE_SESSION}
        )
    ) THEN i.waits_for END,
        i.waits_session_id, i.waits_name, i.waits_since
    FROM instances AS i WHERE i.agent_id IN (SELECT value FROM json_each(:agent_ids))
    ORDER BY i.last_seen DESC, i.instance"""
_FIND_KNOWN = """
    SELECT named.value FROM json_each(:agent_ids) AS named
    JOIN agents ON agents.agent_id = named.value"""
_MEASURE_USAGE = """
    SELECT coalesce(sum(sessions), 0), coalesce(sum(messages), 0),
           coalesce(sum(memory_entries), 0), coalesce(sum(bytes), 0)
    FROM (
        SELECT sessions, 0 AS messages, memory_entries, bytes
        FROM usage INDEXED BY usage_by_agent WHERE agent_id = :agent_id
        UNION ALL
        SELECT 0, messages, 0, bytes
        FROM participants INDEXED BY participants_by_agent WHERE agent_id = :agent_id
    ) AS stored"""
_IS_TYPE_KNOWN = "SELECT 1 FROM agents WHERE agent_type = :agent_type LIMIT 1"


class Agents(Subject):
    """Agents and their presence. See contract/agents.py."""

    @reads
    def _is_anyone_gone(self, connection: sqlite3.Connection, gone_before: datetime) -> bool:
        found = connection.execute(_FIND_GONE, {"gone_before": encode_time(gone_before)}).fetchone()
        return found is not None

    @writes
    def _touch(
        self, connection: sqlite3.Connection, seen: Sequence[Agent], gone_before: datetime | None
    ) -> PresenceChange:
        # Mark the agents that left first, so that one of them in `seen` joins again.
        left = [] if gone_before is None else _mark_gone(connection, gone_before)
        agent_ids = json.dumps([agent.agent_id for agent in seen])
        joined = connection.execute(_LIST_ABSENT, {"agent_ids": agent_ids}).fetchall()
        connection.executemany(
            _TOUCH,
            [
                {
                    "agent_id": agent.agent_id,
                    "agent_type": agent.agent_type,
                    "first_seen": encode_time(agent.first_seen),
                    "last_seen": encode_time(agent.last_seen),
                }
                for agent in seen
            ],
        )
        return PresenceChange(joined=[row[0] for row in joined], left=left)

    @reads
    def list_seen(
        self,
        connection: sqlite3.Connection,
        session_id: str | None,
        caller: Caller,
        guard: SessionGuard | None,
        *,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> list[Agent]:
        bounds = {
            "before_at": encode_time(before[0]) if before else MAX_INTEGER,
            "before_id": before[1] if before else "",
            "limit": clamp(limit),
        }
        if session_id is None:
            rows = connection.execute(_LIST, bounds)
        else:
            session = use_session(connection, session_id, guard)
            members = json.dumps([session.created_by, *session.invited])
            of_session = {"session_id": session_id, "members": members}
            rows = connection.execute(
                _LIST_OF_SESSION if caller.is_admin else _LIST_VISIBLE_IN_SESSION,
                of_session | audience_keys(caller) | bounds,
            )
        return [to_agent(row) for row in rows]

    @writes
    def _note_instances(
        self, connection: sqlite3.Connection, seen: Sequence[InstanceSeen], forget_before: datetime
    ) -> None:
        connection.execute(_FORGET_INSTANCES, {"forget_before": encode_time(forget_before)})
        longest = {"max_pause": MAX_PAUSE // timedelta(microseconds=1)}
        rows = [from_instance_seen(one) | longest for one in seen]
        connection.executemany(_NOTE_INSTANCE, rows)
        connection.executemany(_NOTE_SESSION, rows)
        named = {one.agent_id for one in seen if one.instance}
        surplus = [{"agent_id": name, "kept": MAX_INSTANCES - 1} for name in named]
        connection.executemany(_FORGET_SURPLUS, surplus)

    async def note_instances(
        self, seen: Sequence[InstanceSeen], *, forget_before: datetime
    ) -> None:
        if seen:
            await self._note_instances(seen, forget_before)

    @writes
    def set_status(
        self,
        connection: sqlite3.Connection,
        caller: Caller,
        *,
        status: str,
        state: AgentState | None,
        now: datetime,
    ) -> datetime | None:
        said = status or state
        (since,) = connection.execute(
            _SET_STATUS,
            {
                "agent_id": caller.agent_id,
                "instance": caller.instance,
                "now": encode_time(now),
                "state": state or "",
                "status": status,
                "since": encode_time(now) if said else None,
            },
        ).fetchone()
        return decode_optional_time(since)

    @reads
    def list_instances(
        self, connection: sqlite3.Connection, agent_ids: Sequence[str], caller: Caller
    ) -> list[Instance]:
        rows = connection.execute(
            _LIST_INSTANCES, {"agent_ids": json.dumps(list(agent_ids)), **session_rights(caller)}
        )
        return [to_instance(row) for row in rows]

    @reads
    def find_known(
        self, connection: sqlite3.Connection, agent_ids: Sequence[str]
    ) -> frozenset[str]:
        rows = connection.execute(_FIND_KNOWN, {"agent_ids": json.dumps(list(agent_ids))})
        return frozenset(row[0] for row in rows)

    @reads
    def measure_usage(self, connection: sqlite3.Connection, agent_id: str) -> Usage:
        return Usage(*connection.execute(_MEASURE_USAGE, {"agent_id": agent_id}).fetchone())

    @reads
    def is_type_known(self, connection: sqlite3.Connection, agent_type: str) -> bool:
        return connection.execute(_IS_TYPE_KNOWN, {"agent_type": agent_type}).fetchone() is not None

    async def touch(
        self, seen: Sequence[Agent], *, gone_before: datetime | None = None
    ) -> PresenceChange:
        # Read first, because this runs often and there is mostly nothing to write.
        if not seen and (gone_before is None or not await self._is_anyone_gone(gone_before)):
            return PresenceChange(joined=[], left=[])
        return await self._touch(seen, gone_before)


def _mark_gone(connection: sqlite3.Connection, gone_before: datetime) -> list[str]:
    left = connection.execute(_LEAVE, {"gone_before": encode_time(gone_before)}).fetchall()
    return [row[0] for row in left]
