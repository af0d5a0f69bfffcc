"""SQLite files as the older shared-context server makes them: its schema version 3, as in 1.0.x."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

_JSON = "metadata TEXT CHECK (metadata IS NULL OR json_valid(metadata))"
_NOW = "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"
SCHEMA = f"""
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY, purpose TEXT NOT NULL, created_at {_NOW}, updated_at {_NOW},
        is_active BOOLEAN DEFAULT TRUE, created_by TEXT NOT NULL, {_JSON});
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, sender TEXT NOT NULL,
        sender_type TEXT DEFAULT 'generic', content TEXT NOT NULL,
        visibility TEXT DEFAULT 'public'
            CHECK (visibility IN ('public', 'private', 'agent_only', 'admin_only')),
        message_type TEXT DEFAULT 'agent_response', {_JSON}, timestamp {_NOW},
        parent_message_id INTEGER,
        CONSTRAINT messages_content_length CHECK (length(content) <= 100000),
        FOREIGN KEY (session_id) REFERENCES sessions(id) ON DELETE CASCADE,
        FOREIGN KEY (parent_message_id) REFERENCES messages(id) ON DELETE SET NULL);
    CREATE TABLE agent_memory (
        id INTEGER PRIMARY KEY AUTOINCREMENT, agent_id TEXT NOT NULL, session_id TEXT,
        key TEXT NOT NULL, value TEXT NOT NULL, {_JSON}, created_at {_NOW}, updated_at {_NOW},
        expires_at TIMESTAMP, UNIQUE(agent_id, session_id, key),
        FOREIGN KEY (session_id) REFERENCES sessions(id) ON DELETE CASCADE);
    CREATE TABLE audit_log (
        id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp {_NOW}, event_type TEXT NOT NULL,
        agent_id TEXT NOT NULL, session_id TEXT, resource TEXT, action TEXT, result TEXT, {_JSON},
        FOREIGN KEY (session_id) REFERENCES sessions(id) ON DELETE SET NULL);
    CREATE TRIGGER sessions_updated_at_trigger AFTER UPDATE ON sessions FOR EACH ROW BEGIN
        UPDATE sessions SET updated_at = CURRENT_TIMESTAMP WHERE id = NEW.id; END;
    CREATE INDEX idx_messages_session_id ON messages(session_id);
    CREATE VIEW active_sessions_with_activity AS
        SELECT s.*, count(m.id) AS message_count FROM sessions s
        LEFT JOIN messages m ON s.id = m.session_id WHERE s.is_active = TRUE GROUP BY s.id;
    CREATE TABLE schema_version (
        version INTEGER PRIMARY KEY, applied_at {_NOW}, description TEXT);
    CREATE TABLE secure_tokens (
        id INTEGER PRIMARY KEY AUTOINCREMENT, token_id TEXT UNIQUE NOT NULL,
        encrypted_jwt BLOB NOT NULL, agent_id TEXT NOT NULL, expires_at TIMESTAMP NOT NULL,
        created_at {_NOW});
    INSERT INTO schema_version (version) VALUES (3);
"""

ALPHA, BETA = "session_00000000000000aa", "session_00000000000000bb"
AT = 1_755_000_000.25  # seconds since 1970, as the older server writes them


def insert(connection: sqlite3.Connection, table: str, **values: Any) -> None:
    marks = ", ".join("?" * len(values))
    statement = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"
    connection.execute(statement, tuple(values.values()))


def make_older_file(path: Path) -> Path:
    """Two sessions, of which one is closed, with something of everything."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        session = {"created_at": AT, "updated_at": AT, "created_by": "alice"}
        insert(connection, "sessions", id=BETA, purpose="Done", **session)
        insert(connection, "sessions", id=ALPHA, purpose="Plan", metadata='{"a": 1}', **session)
        connection.execute("UPDATE sessions SET is_active = FALSE WHERE id = ?", (BETA,))
        for number, (session_id, visibility) in enumerate(
            [(ALPHA, "public"), (BETA, "public"), (ALPHA, "private"), (ALPHA, "agent_only")], 1
        ):
            insert(
                connection,
                "messages",
                session_id=session_id,
                sender="alice",
                sender_type="claude",
                content=f"Text {number}",
                visibility=visibility,
                metadata='{"n": [1, null]}' if number == 3 else None,
                parent_message_id=1 if number == 3 else None,
                timestamp=AT + number,
            )
        memory = {"agent_id": "alice", "created_at": AT, "metadata": "{}"}
        late = "2025-08-12T12:00:01+00:00"
        for key, value, session_id in [
            ("plan", '{"steps": 2}', ALPHA),
            ("note", "plain words", ALPHA),
            ("seen", "1", None),
            ("seen", "2", None),  # the older server keeps both
        ]:
            row = {"key": key, "value": value, "session_id": session_id, "updated_at": late}
            insert(connection, "agent_memory", **memory, **row, expires_at=AT + 3e9)
        insert(connection, "audit_log", event_type="session_created", agent_id="alice")
        details = '{"key": "plan", "session_scoped": true}'
        event = {"event_type": "memory_set", "agent_id": "alice", "session_id": ALPHA}
        insert(connection, "audit_log", **event, action="set", metadata=details)
    return path
