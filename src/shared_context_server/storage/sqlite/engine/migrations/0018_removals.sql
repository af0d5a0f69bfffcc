-- What is told of removed messages: the session's first_seq; and to a reader of all sessions, which of them
-- have lost messages behind the last one that it has read.
ALTER TABLE changes ADD COLUMN seq INTEGER;
DROP TRIGGER messages_are_expired;
CREATE TRIGGER messages_are_expired AFTER UPDATE OF first_seq ON sessions
WHEN NEW.first_seq > OLD.first_seq AND NEW.first_seq > NEW.expired_up_to BEGIN
    INSERT INTO changes (kind, session_id, seq) VALUES ('messages_expired', NEW.id, NEW.first_seq);
END;
CREATE INDEX sessions_by_removal ON sessions (removed_id) WHERE removed_id > 0;
