-- Times are whole microseconds since 1970-01-01 UTC. JSON is text.

CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    purpose TEXT NOT NULL,
    access TEXT NOT NULL CHECK (access IN ('open', 'invited')),
    -- 'deleting': gone for every caller, its rows are being removed step by step.
    status TEXT NOT NULL CHECK (status IN ('active', 'closed', 'deleting')),
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    closed_at INTEGER,
    invited TEXT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE INDEX sessions_by_age ON sessions (created_at, id);
CREATE INDEX sessions_by_status ON sessions (status, created_at, id);
CREATE INDEX sessions_by_creator ON sessions (created_by, created_at, id);

-- The logs. Nothing counts messages on the side: a session's last seq is the end of the index.
-- parent_message_id has no foreign key: checking it would need an index over all sessions for
-- every message that is deleted, and messages only ever go together with their session.
-- The wide columns stand last, so that filters do not read through them.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL CHECK (seq >= 1),
    sender TEXT NOT NULL,
    sender_type TEXT NOT NULL,
    visibility TEXT NOT NULL
        CHECK (visibility IN ('public', 'private', 'agent_only', 'admin_only')),
    created_at INTEGER NOT NULL,
    parent_message_id INTEGER,
    recipients TEXT NOT NULL,
    metadata TEXT NOT NULL,
    content TEXT NOT NULL
);
CREATE UNIQUE INDEX messages_by_seq ON messages (session_id, seq);
-- Holds what get_messages filters by, so that counting reads no message.
CREATE INDEX messages_by_sender ON messages (session_id, sender, seq, visibility, created_at);
CREATE INDEX messages_by_parent
    ON messages (session_id, parent_message_id, seq) WHERE parent_message_id IS NOT NULL;

-- To whom a message is addressed; audience.py says how. `ordinal` numbers the messages of a
-- session under one name from 1, so that counting a range is two look-ups.
CREATE TABLE audience (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    seq INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (session_id, name, seq)
) WITHOUT ROWID;
-- A trigger, because each statement that the program itself runs makes the threads of its process
-- contend for the interpreter.
CREATE TRIGGER messages_are_addressed AFTER INSERT ON messages BEGIN
    INSERT INTO audience (session_id, name, seq, created_at, ordinal)
    SELECT NEW.session_id, addressed.name, NEW.seq, NEW.created_at, 1 + coalesce((
        SELECT earlier.ordinal FROM audience AS earlier
        WHERE earlier.session_id = NEW.session_id AND earlier.name = addressed.name
        ORDER BY earlier.seq DESC LIMIT 1
    ), 0)
    FROM (
        SELECT '*' AS name WHERE NEW.visibility = 'public'
        UNION SELECT 'type:' || NEW.sender_type WHERE NEW.visibility = 'agent_only'
        UNION SELECT 'agent:' || NEW.sender WHERE NEW.visibility = 'private'
        UNION SELECT 'agent:' || value FROM json_each(NEW.recipients)
            WHERE NEW.visibility = 'private'
    ) AS addressed;
END;

-- Whoever has written in a session.
CREATE TABLE participants (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    agent_id TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    PRIMARY KEY (session_id, agent_id)
) WITHOUT ROWID;
CREATE TRIGGER messages_have_writers AFTER INSERT ON messages BEGIN
    INSERT OR IGNORE INTO participants (session_id, agent_id, first_seq)
    VALUES (NEW.session_id, NEW.sender, NEW.seq);
END;

-- How far an agent has read.
CREATE TABLE cursors (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    agent_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (session_id, agent_id)
) WITHOUT ROWID;

-- session_id '' is server-wide and owner '' is shared: no session and no agent has an empty id,
-- and NULLs would not be unique in a key. Hence no foreign key either.
CREATE TABLE memory (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    updated_by TEXT NOT NULL,
    expires_at INTEGER,
    size_bytes INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (session_id, owner, key)
);
CREATE INDEX memory_by_expiry ON memory (expires_at) WHERE expires_at IS NOT NULL;

-- The first answer to a call that carried an idempotency key; session_id '' is server-wide.
CREATE TABLE idempotency (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    answer TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (session_id, agent_id, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE TABLE agents (
    agent_id TEXT NOT NULL PRIMARY KEY,
    agent_type TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX agents_by_last_seen ON agents (last_seen);

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL,
    permissions TEXT NOT NULL,
    secret_hash TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) WITHOUT ROWID;

CREATE TABLE credentials (
    id TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL,
    agent_type TEXT NOT NULL,
    permissions TEXT NOT NULL,
    key_id TEXT NOT NULL,
    handle_hash TEXT NOT NULL UNIQUE,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) WITHOUT ROWID;
CREATE INDEX credentials_by_expiry ON credentials (expires_at);
CREATE INDEX credentials_revoked ON credentials (expires_at) WHERE revoked_at IS NOT NULL;

-- One row: grows with every change of what get_auth_state answers.
CREATE TABLE auth_generation (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL
);
INSERT INTO auth_generation (id, generation) VALUES (1, 1);

CREATE TABLE audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    session_id TEXT,
    details TEXT NOT NULL
);
CREATE INDEX audit_log_by_age ON audit_log (created_at);
