"""Agents the server has heard of, and how many are about."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from shared_context_server.models import Agent, Caller
from shared_context_server.storage.codec import AGENT, MAX_INTEGER, clamp, encode_time, to_agent
from shared_context_server.storage.contract import PresenceChange, SessionGuard
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.work import (
    Subject,
    reads,
    reads_snapshot,
    writes,
)
from shared_context_server.storage.postgres.sessions import use_session
from shared_context_server.storage.rules.audience import names_of_caller

# Each coming and going is to be told once, so those who tell take turns. Any number would do.
_TAKE_TURNS = "SELECT pg_advisory_xact_lock(7243000000000000002)"
_TOUCH = """
    INSERT INTO agents (agent_id, agent_type, first_seen, last_seen, is_around)
    SELECT seen.agent_id, seen.agent_type, seen.first_seen, seen.last_seen, TRUE
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
        AS seen (agent_id, agent_type, first_seen, last_seen)
    ON CONFLICT (agent_id) DO UPDATE SET
        is_around = TRUE,
        agent_type = CASE
            WHEN excluded.last_seen >= agents.last_seen THEN excluded.agent_type
            ELSE agents.agent_type
        END,
        last_seen = greatest(agents.last_seen, excluded.last_seen)"""
_LIST_ABSENT = """
    SELECT named.agent_id FROM unnest($1::text[]) WITH ORDINALITY AS named (agent_id, place)
    LEFT JOIN agents ON agents.agent_id = named.agent_id
    WHERE agents.is_around IS NOT TRUE ORDER BY named.place"""
_FIND_GONE = "SELECT 1 FROM agents WHERE is_around AND last_seen < $1 LIMIT 1"
_LEAVE = """
    UPDATE agents SET is_around = FALSE WHERE is_around AND last_seen < $1 RETURNING agent_id"""
_OLDER = """
    (last_seen, agent_id) < ($1, $2) ORDER BY last_seen DESC, agent_id DESC LIMIT $3"""
_LIST = f"SELECT {AGENT} FROM agents WHERE {_OLDER}"
_LIST_OF_SESSION = f"""
    SELECT {AGENT} FROM agents WHERE agent_id IN (
        SELECT unnest($4::text[])
        UNION ALL SELECT agent_id FROM participants WHERE session_id = $5
    ) AND {_OLDER}"""
_LIST_HEARD_IN_SESSION = f"""
    SELECT {AGENT} FROM agents WHERE agent_id IN (
        SELECT unnest($4::text[])
        UNION ALL SELECT agent_id FROM writers WHERE session_id = $5 AND name = ANY($6::text[])
    ) AND {_OLDER}"""
_FIND_KNOWN = "SELECT agent_id FROM agents WHERE agent_id = ANY($1::text[])"
_IS_TYPE_KNOWN = "SELECT 1 FROM agents WHERE agent_type = $1 LIMIT 1"


class Agents(Subject):
    """Agents and their presence. See contract/agents.py."""

    @reads
    async def _is_anyone_gone(self, connection: Connection, gone_before: datetime) -> bool:
        return await connection.fetchrow(_FIND_GONE, encode_time(gone_before)) is not None

    @writes
    async def _touch(
        self, connection: Connection, seen: Sequence[Agent], gone_before: datetime | None
    ) -> PresenceChange:
        await connection.execute(_TAKE_TURNS)
        # Who has been away is marked first, so that one of `seen` who was comes back.
        left = []
        if gone_before is not None:
            left = [row[0] for row in await connection.fetch(_LEAVE, encode_time(gone_before))]
        # One statement must not touch a row twice: of an agent that is named twice, the latest counts.
        latest: dict[str, Agent] = {}
        for agent in sorted(seen, key=lambda agent: agent.last_seen):
            latest[agent.agent_id] = agent
        absent = await connection.fetch(_LIST_ABSENT, list(latest))
        await connection.execute(
            _TOUCH,
            list(latest),
            [agent.agent_type for agent in latest.values()],
            [encode_time(agent.first_seen) for agent in latest.values()],
            [encode_time(agent.last_seen) for agent in latest.values()],
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
        bounds = (
            encode_time(before[0]) if before else MAX_INTEGER,
            before[1] if before else "",
            clamp(limit),
        )
        if session_id is None:
            rows = await connection.fetch(_LIST, *bounds)
        else:
            session = await use_session(connection, session_id, guard)
            members = [session.created_by, *session.invited]
            if caller.is_admin:
                rows = await connection.fetch(_LIST_OF_SESSION, *bounds, members, session_id)
            else:
                names = list(names_of_caller(caller).values())
                rows = await connection.fetch(
                    _LIST_HEARD_IN_SESSION, *bounds, members, session_id, names
                )
        return [to_agent(row) for row in rows]

    @reads
    async def find_known(self, connection: Connection, agent_ids: Sequence[str]) -> frozenset[str]:
        rows = await connection.fetch(_FIND_KNOWN, list(agent_ids))
        return frozenset(row[0] for row in rows)

    @reads
    async def is_type_known(self, connection: Connection, agent_type: str) -> bool:
        return await connection.fetchrow(_IS_TYPE_KNOWN, agent_type) is not None

    async def touch(
        self, seen: Sequence[Agent], *, gone_before: datetime | None = None
    ) -> PresenceChange:
        # Looking first, because it is asked all the time, and mostly nothing is to be written.
        if not seen and (gone_before is None or not await self._is_anyone_gone(gone_before)):
            return PresenceChange(joined=[], left=[])
        return await self._touch(seen, gone_before)
