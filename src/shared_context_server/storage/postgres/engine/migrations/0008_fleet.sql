-- The session of the thread's last call that named one; '': it has named none. Since when it has been
-- waiting for what it waits for. Its usual pause between two signs of life in microseconds, a moving
-- average; 0: only one is known.
ALTER TABLE instances ADD COLUMN session_id TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN waits_since BIGINT;
ALTER TABLE instances ADD COLUMN usual_pause BIGINT NOT NULL DEFAULT 0;
