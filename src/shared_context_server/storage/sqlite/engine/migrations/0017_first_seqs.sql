-- The messages of a session before first_seq were removed. removed_id and removed_at: the id and the time of
-- the last of them. Those up to expired_up_to are to be removed, which the audit log has an entry of.
--
-- The rows of audience of removed messages go too, but the last one of each name stays: it has the number
-- of the messages before first_seq, and the next ordinal goes on from it.
ALTER TABLE sessions ADD COLUMN first_seq INTEGER NOT NULL DEFAULT 1;
ALTER TABLE sessions ADD COLUMN expired_up_to INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN removed_id INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN removed_at INTEGER;

-- Once all that have expired are removed.
CREATE TRIGGER messages_are_expired AFTER UPDATE OF first_seq ON sessions
WHEN NEW.first_seq > OLD.first_seq AND NEW.first_seq > NEW.expired_up_to BEGIN
    INSERT INTO changes (kind, session_id) VALUES ('messages_expired', NEW.id);
END;
