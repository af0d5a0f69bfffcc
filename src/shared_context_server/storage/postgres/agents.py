"""The agents that the server has seen, and their presence, on PostgreSQL."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

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
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import (
    Subject,
    reads,
    reads_snapshot,
    writes,
)
from shared_context_server.storage.postgres.sessions import CAN_SEE_SESSION, use_session
from shared_context_server.storage.rules.audience import audience_keys, session_rights

# A lock, because each joining and leaving must be published once. The number is arbitrary.
_TAKE_TURNS = Statement("SELECT pg_advisory_xact_lock(7243000000000000002)")
_TOUCH = Statement("""
    INSERT INTO agents (agent_id, agent_type, first_seen, last_seen, is_around)
    SELECT seen.agent_id, seen.agent_type, seen.first_seen, seen.last_seen, TRUE
    FROM unnest(:agent_ids::text[], :agent_types::text[], :first_seens::bigint[], :last_seens::bigint[])
        AS seen (agent_id, agent_type, first_seen, last_seen)
    ON CONFLICT (agent_id) DO UPDATE SET
        is_around = TRUE,
        agent_type = CASE
            WHEN excluded.last_seen >= agents.last_seen THEN excluded.agent_type
            ELSE agents.agent_type
        END,
        last_seen = greatest(agents.last_seen, excluded.last_seen)""")
_LIST_ABSENT = Statement("""
    SELECT named.agent_id FROM unnest(:agent_ids::text[]) WITH ORDINALITY AS named (agent_id, place)
    LEFT JOIN agents ON agents.agent_id = named.agent_id
    WHERE agents.is_around IS NOT TRUE ORDER BY named.place""")
_FIND_GONE = Statement("SELECT 1 FROM agents WHERE is_around AND last_seen < :gone_before LIMIT 1")
_LEAVE = Statement("""
    UPDATE agents SET is_around = FALSE WHERE is_around AND last_seen < :gone_before RETURNING agent_id""")
_OLDER = """
    (last_seen, agent_id) < (:before_at, :before_id) ORDER BY last_seen DESC, agent_id DESC LIMIT :limit"""
_LIST = Statement(f"SELECT {AGENT} FROM agents WHERE {_OLDER}")
_LIST_OF_SESSION = Statement(f"""
    SELECT {AGENT} FROM agents WHERE agent_id IN (
        SELECT unnest(:members::text[])
        UNION ALL SELECT agent_id FROM participants WHERE session_id = :session_id
    ) AND {_OLDER}""")
_LIST_VISIBLE_IN_SESSION = Statement(f"""
    SELECT {AGENT} FROM agents WHERE agent_id IN (
        SELECT unnest(:members::text[])
        UNION ALL SELECT agent_id FROM writers WHERE session_id = :session_id AND name = ANY(:names::text[])
    ) AND {_OLDER}""")
_NOTE_INSTANCES = Statement("""
    INSERT INTO instances AS i (
        agent_id, instance, last_seen, last_action, waits_for, waits_session_id, waits_name,
        waits_since, session_id)
    SELECT * FROM unnest(
        :agent_id::text[], :instance::text[], :last_seen::bigint[], :last_action::text[],
        :waits_for::text[], :waits_session_id::text[], :waits_name::text[],
        :waits_since::bigint[], :session_id::text[])
    ON CONFLICT (agent_id, instance) DO UPDATE SET
        last_action = CASE excluded.last_action
            WHEN '' THEN i.last_action ELSE excluded.last_action
        END,
        usual_pause = CASE
            WHEN excluded.last_seen = i.last_seen THEN i.usual_pause
            WHEN i.usual_pause = 0 THEN least(excluded.last_seen - i.last_seen, :max_pause::bigint)
            ELSE (7 * i.usual_pause + least(excluded.last_seen - i.last_seen, :max_pause::bigint)) / 8
        END,
        last_seen = excluded.last_seen,
        session_id = CASE excluded.session_id WHEN '' THEN i.session_id ELSE excluded.session_id END,
        waits_since = CASE
            WHEN (i.waits_for, i.waits_session_id, i.waits_name) IS NOT DISTINCT FROM
                (excluded.waits_for, excluded.waits_session_id, excluded.waits_name)
            THEN i.waits_since ELSE excluded.waits_since
        END,
        waits_for = excluded.waits_for, waits_session_id = excluded.waits_session_id,
        waits_name = excluded.waits_name
    WHERE excluded.last_seen >= i.last_seen""")
# A status that was set since the call was noted has a later time.
_NOTE_SESSIONS = Statement("""
    UPDATE instances AS i SET session_id = noted.session_id
    FROM unnest(:agent_id::text[], :instance::text[], :last_seen::bigint[], :session_id::text[])
        AS noted (agent_id, instance, last_seen, session_id)
    WHERE i.agent_id = noted.agent_id AND i.instance = noted.instance
      AND i.last_seen > noted.last_seen AND noted.session_id <> ''""")
_FORGET_INSTANCES = Statement("DELETE FROM instances WHERE last_seen < :forget_before")
_FORGET_SURPLUS = Statement("""
    DELETE FROM instances USING unnest(:agent_ids::text[]) AS named (agent_id)
    WHERE instances.agent_id = named.agent_id AND instances.last_seen < (
        SELECT other.last_seen FROM instances AS other WHERE other.agent_id = named.agent_id
        ORDER BY other.last_seen DESC LIMIT 1 OFFSET :kept)""")
_SET_STATUS = Statement("""
    INSERT INTO instances AS i (agent_id, instance, last_seen, last_action, state, status, since)
    VALUES (:agent_id, :instance, :now, 'set_status', :state, :status, :since)
    ON CONFLICT (agent_id, instance) DO UPDATE SET
        last_seen = greatest(i.last_seen, excluded.last_seen), last_action = excluded.last_action,
        since = CASE
            WHEN (i.state, i.status) = (excluded.state, excluded.status) THEN i.since
            ELSE excluded.since
        END,
        state = excluded.state, status = excluded.status
    RETURNING since""")
_LIST_INSTANCES = Statement(f"""
    SELECT i.agent_id, i.instance, i.last_seen, i.last_action, i.state, i.status, i.since,
        CASE WHEN (
        i.waits_session_id = '' OR EXISTS (
            SELECT 1 FROM sessions AS s
            WHERE s.id = i.waits_session_id AND s.status <> 'deleting' AND {CAN_SEE_SESSION}
        )
    ) THEN i.waits_for END,
        i.waits_session_id, i.waits_name, i.waits_since
    FROM instances AS i WHERE i.agent_id = ANY(:agent_ids::text[])
    ORDER BY i.last_seen DESC, i.instance""")
_FIND_KNOWN = Statement("SELECT agent_id FROM agents WHERE agent_id = ANY(:agent_ids::text[])")
_MEASURE_USAGE = Statement("""
    SELECT coalesce(sum(sessions), 0)::bigint, coalesce(sum(messages), 0)::bigint,
           coalesce(sum(memory_entries), 0)::bigint, coalesce(sum(bytes), 0)::bigint
    FROM (
        SELECT sessions, 0 AS messages, memory_entries, bytes
        FROM usage WHERE agent_id = :agent_id
        UNION ALL
        SELECT 0, messages, 0, bytes
        FROM participants WHERE agent_id = :agent_id
    ) AS stored""")
_IS_TYPE_KNOWN = Statement("SELECT 1 FROM agents WHERE agent_type = :agent_type LIMIT 1")


class Agents(Subject):
    """Agents and their presence. See contract/agents.py."""

    @reads
    async def _is_anyone_gone(self, connection: Connection, gone_before: datetime) -> bool:
        return (
            await connection.fetchrow(*_FIND_GONE(gone_before=encode_time(gone_before))) is not None
        )

    @writes
    async def _touch(
        self, connection: Connection, seen: Sequence[Agent], gone_before: datetime | None
    ) -> PresenceChange:
        await connection.execute(*_TAKE_TURNS())
        # Mark the agents that left first, so that one of them in `seen` joins again.
        left = []
        if gone_before is not None:
            left = [
                row[0]
                for row in await connection.fetch(*_LEAVE(gone_before=encode_time(gone_before)))
            ]
        # A statement must not touch a row twice: for an agent that occurs twice, the latest counts.
        latest: dict[str, Agent] = {}
        for agent in sorted(seen, key=lambda agent: agent.last_seen):
            latest[agent.agent_id] = agent
        absent = await connection.fetch(*_LIST_ABSENT(agent_ids=list(latest)))
        await connection.execute(
            *_TOUCH(
                agent_ids=list(latest),
                agent_types=[agent.agent_type for agent in latest.values()],
                first_seens=[encode_time(agent.first_seen) for agent in latest.values()],
                last_seens=[encode_time(agent.last_seen) for agent in latest.values()],
            )
        )
        return PresenceChange(joined=[row[0] for row in absent], left=left)

    @reads_snapshot
    async def list_seen(
        self,
        connection: Connection,
        session_id: str | None,
        caller: Caller,
        guard: SessionGuard | None,
        *,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> list[Agent]:
        parameters: dict[str, Any] = {
            "before_at": encode_time(before[0]) if before else MAX_INTEGER,
            "before_id": before[1] if before else "",
            "limit": clamp(limit),
        }
        if session_id is None:
            rows = await connection.fetch(*_LIST(**parameters))
        else:
            session = await use_session(connection, session_id, guard)
            parameters["members"] = [session.created_by, *session.invited]
            parameters["session_id"] = session_id
            parameters["names"] = list(audience_keys(caller).values())
            statement = _LIST_OF_SESSION if caller.is_admin else _LIST_VISIBLE_IN_SESSION
            rows = await connection.fetch(*statement(**parameters))
        return [to_agent(row) for row in rows]

    @writes
    async def _note_instances(
        self, connection: Connection, seen: Sequence[InstanceSeen], forget_before: datetime
    ) -> None:
        await connection.execute(*_TAKE_TURNS())  # so that two replicas do not block each other
        await connection.execute(*_FORGET_INSTANCES(forget_before=encode_time(forget_before)))
        rows = [from_instance_seen(one) for one in seen]
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
        columns["max_pause"] = MAX_PAUSE // timedelta(microseconds=1)
        await connection.execute(*_NOTE_INSTANCES(**columns))
        await connection.execute(*_NOTE_SESSIONS(**columns))
        named = sorted({one.agent_id for one in seen if one.instance})
        if named:
            await connection.execute(*_FORGET_SURPLUS(agent_ids=named, kept=MAX_INSTANCES - 1))

    async def note_instances(
        self, seen: Sequence[InstanceSeen], *, forget_before: datetime
    ) -> None:
        if seen:
            await self._note_instances(seen, forget_before)

    @writes
    async def set_status(
        self,
        connection: Connection,
        caller: Caller,
        *,
        status: str,
        state: AgentState | None,
        now: datetime,
    ) -> datetime | None:
        said = status or state
        since = await connection.fetchval(
            *_SET_STATUS(
                agent_id=caller.agent_id,
                instance=caller.instance,
                now=encode_time(now),
                state=state or "",
                status=status,
                since=encode_time(now) if said else None,
            )
        )
        return decode_optional_time(since)

    @reads
    async def list_instances(
        self, connection: Connection, agent_ids: Sequence[str], caller: Caller
    ) -> list[Instance]:
        rows = await connection.fetch(
            *_LIST_INSTANCES(agent_ids=list(agent_ids), **session_rights(caller))
        )
        return [to_instance(row) for row in rows]

    @reads
    async def find_known(self, connection: Connection, agent_ids: Sequence[str]) -> frozenset[str]:
        rows = await connection.fetch(*_FIND_KNOWN(agent_ids=list(agent_ids)))
        return frozenset(row[0] for row in rows)

    @reads
    async def measure_usage(self, connection: Connection, agent_id: str) -> Usage:
        row = await connection.fetchrow(*_MEASURE_USAGE(agent_id=agent_id))
        assert row is not None
        return Usage(*row)

    @reads
    async def is_type_known(self, connection: Connection, agent_type: str) -> bool:
        return await connection.fetchrow(*_IS_TYPE_KNOWN(agent_type=agent_type)) is not None

    async def touch(
        self, seen: Sequence[Agent], *, gone_before: datetime | None = None
    ) -> PresenceChange:
        # Read first, because this runs often and there is mostly nothing to write.
        if not seen and (gone_before is None or not await self._is_anyone_gone(gone_before)):
            return PresenceChange(joined=[], left=[])
        return await self._touch(seen, gone_before)
