-- The session of the thread's last call that named one; '': it has named none. Since when it has been
-- waiting for what it waits for. Its usual pause between two signs of life in microseconds, a moving
-- average; 0: only one is known.
ALTER TABLE instances ADD COLUMN session_id TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN waits_since INTEGER;
ALTER TABLE instances ADD COLUMN usual_pause INTEGER NOT NULL DEFAULT 0;

-- What is held on the whole server, in the order in which it ends.
CREATE INDEX leases_by_expiry ON leases (expires_at, session_id, name) WHERE holder IS NOT NULL;
