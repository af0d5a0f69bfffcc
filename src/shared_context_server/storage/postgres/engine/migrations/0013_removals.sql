-- What is told of removed messages: the session's first_seq; and to a reader of all sessions, which of them
-- have lost messages behind the last one that it has read.
ALTER TABLE changes ADD COLUMN seq BIGINT;
CREATE OR REPLACE FUNCTION tell_of_expired_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (kind, session_id, seq) VALUES ('messages_expired', NEW.id, NEW.first_seq);
    RETURN NULL;
END $$;
CREATE INDEX sessions_by_removal ON sessions (removed_id) WHERE removed_id > 0;
