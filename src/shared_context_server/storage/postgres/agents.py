"""The agents that the server has seen, and their presence, on PostgreSQL."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from shared_context_server.models import Agent, Caller
from shared_context_server.storage.codec import AGENT, MAX_INTEGER, clamp, encode_time, to_agent
from shared_context_server.storage.contract import PresenceChange, SessionGuard
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import (
    Subject,
    reads,
    reads_snapshot,
    writes,
)
from shared_context_server.storage.postgres.sessions import use_session
from shared_context_server.storage.rules.audience import audience_keys

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
_FIND_KNOWN = Statement("SELECT agent_id FROM agents WHERE agent_id = ANY(:agent_ids::text[])")
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

    @reads
    async def find_known(self, connection: Connection, agent_ids: Sequence[str]) -> frozenset[str]:
        rows = await connection.fetch(*_FIND_KNOWN(agent_ids=list(agent_ids)))
        return frozenset(row[0] for row in rows)

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
