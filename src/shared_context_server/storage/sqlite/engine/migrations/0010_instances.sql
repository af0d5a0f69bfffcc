-- The thread of the client that has sent the message or taken the lease; '': it named none.
ALTER TABLE messages ADD COLUMN sender_instance TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN instance TEXT NOT NULL DEFAULT '';

-- What each thread of an agent did last, what it says of itself, and what it waits for. state and status
-- '': it has said nothing. waits_for: 'messages' or 'lease'; waits_session_id '': a server-wide lease.
CREATE TABLE instances (
    agent_id TEXT NOT NULL,
    instance TEXT NOT NULL,
    last_seen INTEGER NOT NULL,
    last_action TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT '',
    since INTEGER,
    waits_for TEXT,
    waits_session_id TEXT NOT NULL DEFAULT '',
    waits_name TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (agent_id, instance)
) WITHOUT ROWID;
CREATE INDEX instances_by_agent ON instances (agent_id, last_seen);
CREATE INDEX instances_by_last_seen ON instances (last_seen);
CREATE INDEX leases_by_holder ON leases (holder, expires_at) WHERE holder IS NOT NULL;
