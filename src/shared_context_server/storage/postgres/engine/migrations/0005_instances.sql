-- The thread of the client that has sent the message or taken the lease; '': it named none.
ALTER TABLE messages ADD COLUMN sender_instance TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN instance TEXT COLLATE "C" NOT NULL DEFAULT '';

-- As before, and with the sender's thread.
DROP FUNCTION append_message(
    TEXT, BIGINT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, BIGINT, TEXT, TEXT, TEXT);
CREATE FUNCTION append_message(
    p_session_id TEXT, p_session_created_at BIGINT, p_sender TEXT, p_sender_type TEXT,
    p_visibility TEXT, p_recipients TEXT, p_metadata TEXT, p_content TEXT, p_created_at BIGINT,
    p_key TEXT, p_kind TEXT, p_fingerprint TEXT, p_sender_instance TEXT
) RETURNS TABLE (id BIGINT, seq BIGINT) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_id BIGINT;
    v_seq BIGINT;
BEGIN
    PERFORM 1 FROM sessions AS s
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
    SELECT coalesce(max(m.seq), 0) + 1 INTO v_seq FROM messages AS m
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

-- What each thread of an agent did last, what it says of itself, and what it waits for. state and status
-- '': it has said nothing. waits_for: 'messages' or 'lease'; waits_session_id '': a server-wide lease.
CREATE TABLE instances (
    agent_id TEXT COLLATE "C" NOT NULL,
    instance TEXT COLLATE "C" NOT NULL,
    last_seen BIGINT NOT NULL,
    last_action TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT '',
    since BIGINT,
    waits_for TEXT,
    waits_session_id TEXT COLLATE "C" NOT NULL DEFAULT '',
    waits_name TEXT COLLATE "C" NOT NULL DEFAULT '',
    PRIMARY KEY (agent_id, instance)
);
CREATE INDEX instances_by_agent ON instances (agent_id, last_seen);
CREATE INDEX instances_by_last_seen ON instances (last_seen);
CREATE INDEX leases_by_holder ON leases (holder, expires_at) WHERE holder IS NOT NULL;
