"""Answers of writes that carried an idempotency key, kept so that a repetition gets them again."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from datetime import datetime

from shared_context_server.errors import Conflict, SessionClosed
from shared_context_server.models import JsonObject, Session
from shared_context_server.storage.base import SessionGuard
from shared_context_server.storage.sqlite.rows import decode_json, encode_json, encode_time

_FIND = """
    SELECT kind, fingerprint, answer FROM idempotency
    WHERE session_id = :session_id AND agent_id = :agent_id AND key = :key"""
_ADD = """
    INSERT INTO idempotency (session_id, agent_id, key, kind, fingerprint, answer, created_at)
    VALUES (:session_id, :agent_id, :key, :kind, :fingerprint, :answer, :created_at)"""


@dataclass(frozen=True, slots=True)
class IdempotentCall:
    """Who calls what, under which key. `kind` names the method: one key does not serve two."""

    session_id: str | None
    agent_id: str
    key: str
    kind: str
    fingerprint: str

    def _where(self) -> dict[str, str]:
        return {
            "session_id": self.session_id or "",
            "agent_id": self.agent_id,
            "key": self.key,
        }

    def find_answer(
        self, connection: sqlite3.Connection, session: Session | None, guard: SessionGuard | None
    ) -> JsonObject | None:
        """What the first such call answered, None if this is the first.

        The guard still decides whether the caller may know; that the session has been closed since
        does not matter. Raises Conflict if the first call was another one.
        """
        row = connection.execute(_FIND, self._where()).fetchone()
        if row is None:
            return None
        if session is not None and guard is not None:
            with contextlib.suppress(SessionClosed):
                guard(session)
        kind, fingerprint, answer = row
        if (kind, fingerprint) != (self.kind, self.fingerprint):
            raise Conflict(
                "This idempotency_key was used for another call.",
                field="idempotency_key",
                suggestion="Use a new idempotency_key for a new call; repeat the old one unchanged.",
            )
        found: JsonObject = decode_json(answer)
        return found

    def keep_answer(
        self, connection: sqlite3.Connection, answer: JsonObject, created_at: datetime
    ) -> None:
        connection.execute(
            _ADD,
            {
                **self._where(),
                "kind": self.kind,
                "fingerprint": self.fingerprint,
                "answer": encode_json(answer),
                "created_at": encode_time(created_at),
            },
        )
