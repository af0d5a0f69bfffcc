-- The messages of a session before first_seq were removed. removed_id and removed_at: the id and the time of
-- the last of them. Those up to expired_up_to are to be removed, which the audit log has an entry of.
--
-- The rows of audience of removed messages go too, but the last one of each name stays: it has the number
-- of the messages before first_seq, and the next ordinal goes on from it.
ALTER TABLE sessions ADD COLUMN first_seq BIGINT NOT NULL DEFAULT 1;
ALTER TABLE sessions ADD COLUMN expired_up_to BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN removed_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN removed_at BIGINT;

-- Once all that have expired are removed.
CREATE FUNCTION tell_of_expired_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (kind, session_id) VALUES ('messages_expired', NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER messages_are_expired AFTER UPDATE OF first_seq ON sessions
    FOR EACH ROW
    WHEN (NEW.first_seq > OLD.first_seq AND NEW.first_seq > NEW.expired_up_to)
    EXECUTE FUNCTION tell_of_expired_messages();

-- As before, and the log also goes on where all of its messages were removed.
CREATE OR REPLACE FUNCTION append_message(
    p_session_id TEXT, p_session_created_at BIGINT, p_sender TEXT, p_sender_type TEXT,
    p_visibility TEXT, p_recipients TEXT, p_metadata TEXT, p_content TEXT, p_created_at BIGINT,
    p_key TEXT, p_kind TEXT, p_fingerprint TEXT, p_sender_instance TEXT
) RETURNS TABLE (id BIGINT, seq BIGINT) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_id BIGINT;
    v_seq BIGINT;
    v_first_seq BIGINT;
BEGIN
    -- A row that was waited for is read again, so first_seq is the present one.
    SELECT s.first_seq INTO v_first_seq FROM sessions AS s
    WHERE s.id = p_session_id AND s.created_at = p_session_created_at AND s.status = 'active'
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_key IS NOT NULL AND EXISTS (
        SELECT 1 FROM idempotency
        WHERE session_id = p_session_id AND agent_id = p_sender AND key = p_key
    ) THEN
        RETURN;
    END IF;
    -- A statement of its own sees what was committed while the lock was waited for.
    SELECT coalesce(max(m.seq), v_first_seq - 1) + 1 INTO v_seq FROM messages AS m
    WHERE m.session_id = p_session_id;
    INSERT INTO messages AS m (
        session_id, seq, sender, sender_type, visibility, recipients, metadata, content, created_at,
        sender_instance)
    VALUES (
        p_session_id, v_seq, p_sender, p_sender_type, p_visibility, p_recipients, p_metadata,
        p_content, p_created_at, p_sender_instance)
    RETURNING m.id INTO v_id;
    IF p_key IS NOT NULL THEN
        INSERT INTO idempotency (
            session_id, agent_id, key, kind, fingerprint, answer, created_at)
        VALUES (
            p_session_id, p_sender, p_key, p_kind, p_fingerprint,
            format('{"id":%s,"seq":%s,"timestamp":%s}', v_id, v_seq, p_created_at), p_created_at);
    END IF;
    RETURN QUERY SELECT v_id, v_seq;
END $$;
