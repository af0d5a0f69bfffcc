"""API keys and issued credentials on SQLite, with a generation that grows when they change."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3
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
from shared_context_server.storage.sqlite.audit import add_audit
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes

_GENERATION = "SELECT generation FROM auth_generation"
# By a random step, so that a store that was set back to an earlier state does not reach the same
# number again by another change.
_NEXT_GENERATION = """
    UPDATE auth_generation SET generation = generation + 1 + (random() & 1073741823)"""

_ADD_KEY = """
    INSERT INTO api_keys (
        id, agent_id, permissions, secret_hash, created_at, revoked_at, agent_type, binding, expires_at,
        last_used_at, label, replaced_by)
    VALUES (
        :id, :agent_id, :permissions, :secret_hash, :created_at, :revoked_at, :agent_type, :binding,
        :expires_at, :last_used_at, :label, :replaced_by)"""
_LIST_KEYS = f"SELECT {API_KEY} FROM api_keys ORDER BY created_at, id"
_LIST_ACTIVE_KEYS = f"SELECT {API_KEY} FROM api_keys WHERE revoked_at IS NULL"
_REVOKE_KEY = "UPDATE api_keys SET revoked_at = :at WHERE id = :id AND revoked_at IS NULL"
_REPLACE_KEY = """
    UPDATE api_keys
    SET replaced_by = :successor, expires_at = min(coalesce(expires_at, :ends_at), :ends_at)
    WHERE id = :id AND revoked_at IS NULL AND replaced_by IS NULL"""
_NOTE_KEY_USE = """
    UPDATE api_keys SET last_used_at = :at
    WHERE id = :id AND (last_used_at IS NULL OR last_used_at <= :before)"""

_MEASURE_KEYS = """
    SELECT key_id, count(*), count(DISTINCT agent_id), max(issued_at) FROM credentials
    WHERE expires_at > :now AND revoked_at IS NULL GROUP BY key_id"""

_ADD_CREDENTIAL = """
    INSERT INTO credentials (
        id, agent_id, agent_type, permissions, key_id, handle_hash, issued_at, expires_at,
        revoked_at, origin_id)
    VALUES (
        :id, :agent_id, :agent_type, :permissions, :key_id, :handle_hash, :issued_at, :expires_at,
        :revoked_at, :origin_id)"""
_FIND_CREDENTIAL = f"SELECT {CREDENTIAL} FROM credentials WHERE id = :id"
_FIND_OF_FAMILY = f"""
    SELECT {CREDENTIAL} FROM credentials WHERE origin_id = :id ORDER BY expires_at DESC LIMIT 1"""
_FIND_BY_HANDLE = f"SELECT {CREDENTIAL} FROM credentials WHERE handle_hash = :handle_hash"
_LIST_REVOKED = """
    SELECT coalesce(origin_id, id) FROM credentials
    WHERE revoked_at IS NOT NULL AND expires_at > :now"""
_IS_REVOKED = """
    SELECT 1 FROM credentials
    WHERE (id = :id OR origin_id = :id) AND revoked_at IS NOT NULL LIMIT 1"""
_REVOKE_CREDENTIALS = """
    UPDATE credentials SET revoked_at = :at
    WHERE (id = :id OR origin_id = :id) AND revoked_at IS NULL AND expires_at > :at"""


class Credentials(Subject):
    """API keys and issued credentials. See contract/credentials.py."""

    @reads
    def get_auth_state(
        self, connection: sqlite3.Connection, known_generation: int | None
    ) -> AuthState | None:
        (generation,) = connection.execute(_GENERATION).fetchone()
        if generation == known_generation:
            return None
        keys = [to_api_key(row) for row in connection.execute(_LIST_ACTIVE_KEYS)]
        revoked = connection.execute(_LIST_REVOKED, {"now": encode_time(utc_now())})
        return AuthState(
            generation=generation,
            keys={key.id: key for key in keys},
            revoked_families=frozenset(row[0] for row in revoked),
        )

    @writes
    def add_key(self, connection: sqlite3.Connection, key: ApiKey, audit: AuditEntry) -> None:
        connection.execute(_ADD_KEY, from_api_key(key))
        connection.execute(_NEXT_GENERATION)
        add_audit(connection, audit)

    @reads
    def list_keys(self, connection: sqlite3.Connection) -> list[ApiKey]:
        return [to_api_key(row) for row in connection.execute(_LIST_KEYS)]

    @writes
    def revoke_key(
        self, connection: sqlite3.Connection, key_id: str, at: datetime, audit: AuditEntry
    ) -> bool:
        return _revoke(connection, _REVOKE_KEY, key_id, at, audit)

    @writes
    def replace_key(
        self,
        connection: sqlite3.Connection,
        key_id: str,
        successor: ApiKey,
        ends_at: datetime,
        audit: AuditEntry,
    ) -> bool:
        changed = connection.execute(
            _REPLACE_KEY,
            {"id": key_id, "successor": successor.id, "ends_at": encode_time(ends_at)},
        )
        if changed.rowcount == 0:
            return False
        connection.execute(_ADD_KEY, from_api_key(successor))
        connection.execute(_NEXT_GENERATION)
        add_audit(connection, audit)
        return True

    @writes
    def note_key_use(
        self, connection: sqlite3.Connection, key_ids: Collection[str], at: datetime
    ) -> None:
        times = {"at": encode_time(at), "before": encode_time(at - KEY_USE_ACCURACY)}
        connection.executemany(_NOTE_KEY_USE, [{"id": key_id, **times} for key_id in key_ids])

    @reads
    def measure_keys(self, connection: sqlite3.Connection, *, now: datetime) -> dict[str, KeyUse]:
        rows = connection.execute(_MEASURE_KEYS, {"now": encode_time(now)})
        return {row[0]: KeyUse(row[1], row[2], decode_optional_time(row[3])) for row in rows}

    @writes
    def add(
        self, connection: sqlite3.Connection, credential: Credential, audit: AuditEntry
    ) -> None:
        """The generation stays the same: a new credential does not change what get_auth_state
        returns."""
        origin_id = credential.origin_id
        if origin_id is not None and connection.execute(_IS_REVOKED, {"id": origin_id}).fetchone():
            raise Unauthenticated("The token has been revoked meanwhile.")
        connection.execute(
            _ADD_CREDENTIAL,
            {
                "id": credential.id,
                "agent_id": credential.agent_id,
                "agent_type": credential.agent_type,
                "permissions": encode_permissions(credential.permissions),
                "key_id": credential.key_id,
                "handle_hash": credential.handle_hash,
                "issued_at": encode_time(credential.issued_at),
                "expires_at": encode_time(credential.expires_at),
                "revoked_at": encode_optional_time(credential.revoked_at),
                "origin_id": origin_id,
            },
        )
        add_audit(connection, audit)

    @reads
    def find(self, connection: sqlite3.Connection, credential_id: str) -> Credential | None:
        for statement in (_FIND_CREDENTIAL, _FIND_OF_FAMILY):
            if row := connection.execute(statement, {"id": credential_id}).fetchone():
                return to_credential(row)
        return None

    @reads
    def find_by_handle(self, connection: sqlite3.Connection, handle_hash: str) -> Credential | None:
        row = connection.execute(_FIND_BY_HANDLE, {"handle_hash": handle_hash}).fetchone()
        return None if row is None else to_credential(row)

    @writes
    def revoke_family(
        self, connection: sqlite3.Connection, family_id: str, at: datetime, audit: AuditEntry
    ) -> bool:
        return _revoke(connection, _REVOKE_CREDENTIALS, family_id, at, audit)


def _revoke(
    connection: sqlite3.Connection, statement: str, id_: str, at: datetime, audit: AuditEntry
) -> bool:
    if connection.execute(statement, {"id": id_, "at": encode_time(at)}).rowcount == 0:
        return False
    connection.execute(_NEXT_GENERATION)
    add_audit(connection, audit)
    return True
