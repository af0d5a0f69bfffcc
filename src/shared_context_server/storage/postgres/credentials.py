"""API keys and issued credentials on PostgreSQL, with a generation that grows when they change."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from shared_context_server.errors import Unauthenticated
from shared_context_server.models import ApiKey, AuditEntry, Credential
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.codec import (
    API_KEY,
    CREDENTIAL,
    decode_optional_time,
    encode_optional_time,
    encode_permissions,
    encode_time,
    from_api_key,
    to_api_key,
    to_credential,
)
from shared_context_server.storage.contract import KEY_USE_ACCURACY, AuthState, KeyUse
from shared_context_server.storage.postgres.audit import add_audit
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import (
    Subject,
    reads,
    reads_snapshot,
    writes,
)

_GENERATION = Statement("SELECT generation FROM auth_generation")
# By a random step, so that a store that was set back to an earlier state does not reach the same
# number again by another change.
_NEXT_GENERATION = Statement("""
    UPDATE auth_generation SET generation = generation + 1 + (random() * 1000000000)::bigint""")

_ADD_KEY = Statement("""
    INSERT INTO api_keys (
        id, agent_id, permissions, secret_hash, created_at, revoked_at, agent_type, binding, expires_at,
        last_used_at, label, replaced_by)
    VALUES (
        :id, :agent_id, :permissions, :secret_hash, :created_at, :revoked_at, :agent_type, :binding,
        :expires_at, :last_used_at, :label, :replaced_by)""")
_LIST_KEYS = Statement(f"SELECT {API_KEY} FROM api_keys ORDER BY created_at, id")
_LIST_ACTIVE_KEYS = Statement(f"SELECT {API_KEY} FROM api_keys WHERE revoked_at IS NULL")
_REVOKE_KEY = Statement("""
    UPDATE api_keys SET revoked_at = :at WHERE id = :id AND revoked_at IS NULL RETURNING id""")
_REPLACE_KEY = Statement("""
    UPDATE api_keys
    SET replaced_by = :successor, expires_at = least(coalesce(expires_at, :ends_at), :ends_at)
    WHERE id = :id AND revoked_at IS NULL AND replaced_by IS NULL RETURNING id""")
_NOTE_KEY_USE = Statement("""
    UPDATE api_keys SET last_used_at = :at
    WHERE id = ANY(:ids) AND (last_used_at IS NULL OR last_used_at <= :before)""")

_MEASURE_KEYS = Statement("""
    SELECT key_id, count(*), count(DISTINCT agent_id), max(issued_at) FROM credentials
    WHERE expires_at > :now AND revoked_at IS NULL GROUP BY key_id""")
_ADD_CREDENTIAL = Statement("""
    INSERT INTO credentials (
        id, agent_id, agent_type, permissions, key_id, handle_hash, issued_at, expires_at,
        revoked_at, origin_id)
    VALUES (
        :id, :agent_id, :agent_type, :permissions, :key_id, :handle_hash, :issued_at, :expires_at,
        :revoked_at, :origin_id)""")
_FIND_CREDENTIAL = Statement(f"SELECT {CREDENTIAL} FROM credentials WHERE id = :id")
_FIND_OF_FAMILY = Statement(f"""
    SELECT {CREDENTIAL} FROM credentials WHERE origin_id = :id ORDER BY expires_at DESC LIMIT 1""")
_FIND_BY_HANDLE = Statement(
    f"SELECT {CREDENTIAL} FROM credentials WHERE handle_hash = :handle_hash"
)
_LIST_REVOKED = Statement("""
    SELECT coalesce(origin_id, id) FROM credentials
    WHERE revoked_at IS NOT NULL AND expires_at > :now""")
# A lock makes refreshing a token and revoking its family run one after the other.
_TAKE_TURNS = Statement("SELECT pg_advisory_xact_lock(hashtextextended(:family_id, 7243))")
_IS_REVOKED = Statement("""
    SELECT 1 FROM credentials WHERE (id = :id OR origin_id = :id) AND revoked_at IS NOT NULL LIMIT 1""")
_REVOKE_CREDENTIALS = Statement("""
    UPDATE credentials SET revoked_at = :at
    WHERE (id = :id OR origin_id = :id) AND revoked_at IS NULL AND expires_at > :at RETURNING id""")


class Credentials(Subject):
    """API keys and issued credentials. See contract/credentials.py."""

    @reads
    async def _get_generation(self, connection: Connection) -> int:
        generation: int = await connection.fetchval(*_GENERATION())
        return generation

    @reads_snapshot
    async def _get_auth_state(self, connection: Connection) -> AuthState:
        generation: int = await connection.fetchval(*_GENERATION())
        keys = [to_api_key(row) for row in await connection.fetch(*_LIST_ACTIVE_KEYS())]
        revoked = await connection.fetch(*_LIST_REVOKED(now=encode_time(utc_now())))
        return AuthState(
            generation=generation,
            keys={key.id: key for key in keys},
            revoked_families=frozenset(row[0] for row in revoked),
        )

    @writes
    async def add_key(self, connection: Connection, key: ApiKey, audit: AuditEntry) -> None:
        await connection.execute(*_ADD_KEY(**from_api_key(key)))
        await connection.execute(*_NEXT_GENERATION())
        await add_audit(connection, audit)

    @reads
    async def list_keys(self, connection: Connection) -> list[ApiKey]:
        return [to_api_key(row) for row in await connection.fetch(*_LIST_KEYS())]

    @writes
    async def revoke_key(
        self, connection: Connection, key_id: str, at: datetime, audit: AuditEntry
    ) -> bool:
        return await _revoke(connection, _REVOKE_KEY, key_id, at, audit)

    @writes
    async def replace_key(
        self,
        connection: Connection,
        key_id: str,
        successor: ApiKey,
        ends_at: datetime,
        audit: AuditEntry,
    ) -> bool:
        changed = await connection.fetchrow(
            *_REPLACE_KEY(id=key_id, successor=successor.id, ends_at=encode_time(ends_at))
        )
        if changed is None:
            return False
        await connection.execute(*_ADD_KEY(**from_api_key(successor)))
        await connection.execute(*_NEXT_GENERATION())
        await add_audit(connection, audit)
        return True

    @writes
    async def note_key_use(
        self, connection: Connection, key_ids: Collection[str], at: datetime
    ) -> None:
        await connection.execute(
            *_NOTE_KEY_USE(
                ids=sorted(key_ids), at=encode_time(at), before=encode_time(at - KEY_USE_ACCURACY)
            )
        )

    @reads
    async def measure_keys(self, connection: Connection, *, now: datetime) -> dict[str, KeyUse]:
        rows = await connection.fetch(*_MEASURE_KEYS(now=encode_time(now)))
        return {row[0]: KeyUse(row[1], row[2], decode_optional_time(row[3])) for row in rows}

    @writes
    async def add(self, connection: Connection, credential: Credential, audit: AuditEntry) -> None:
        """The generation stays the same: a new credential does not change what get_auth_state
        returns."""
        origin_id = credential.origin_id
        if origin_id is not None:
            await connection.execute(*_TAKE_TURNS(family_id=origin_id))
            if await connection.fetchrow(*_IS_REVOKED(id=origin_id)) is not None:
                raise Unauthenticated("The token has been revoked meanwhile.")
        await connection.execute(
            *_ADD_CREDENTIAL(
                id=credential.id,
                agent_id=credential.agent_id,
                agent_type=credential.agent_type,
                permissions=encode_permissions(credential.permissions),
                key_id=credential.key_id,
                handle_hash=credential.handle_hash,
                issued_at=encode_time(credential.issued_at),
                expires_at=encode_time(credential.expires_at),
                revoked_at=encode_optional_time(credential.revoked_at),
                origin_id=origin_id,
            )
        )
        await add_audit(connection, audit)

    @reads
    async def find(self, connection: Connection, credential_id: str) -> Credential | None:
        for statement in (_FIND_CREDENTIAL, _FIND_OF_FAMILY):
            row = await connection.fetchrow(*statement(id=credential_id))
            if row is not None:
                return to_credential(row)
        return None

    @reads
    async def find_by_handle(self, connection: Connection, handle_hash: str) -> Credential | None:
        row = await connection.fetchrow(*_FIND_BY_HANDLE(handle_hash=handle_hash))
        return None if row is None else to_credential(row)

    @writes
    async def revoke_family(
        self, connection: Connection, family_id: str, at: datetime, audit: AuditEntry
    ) -> bool:
        await connection.execute(*_TAKE_TURNS(family_id=family_id))
        return await _revoke(connection, _REVOKE_CREDENTIALS, family_id, at, audit)

    async def get_auth_state(self, known_generation: int | None) -> AuthState | None:
        if known_generation == await self._get_generation():
            return None
        return await self._get_auth_state()


async def _revoke(
    connection: Connection, statement: Statement, id_: str, at: datetime, audit: AuditEntry
) -> bool:
    if await connection.fetchrow(*statement(id=id_, at=encode_time(at))) is None:
        return False
    await connection.execute(*_NEXT_GENERATION())
    await add_audit(connection, audit)
    return True
