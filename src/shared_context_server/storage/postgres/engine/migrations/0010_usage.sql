-- What each agent has stored in each session; session_id '': outside of sessions. A row for both, and not one
-- for each, so that writes of one agent to several sessions do not wait for each other.
-- Counted by triggers, in the transaction of the write. `bytes`: of texts, in UTF-8.
-- The free space in the pages lets an update leave the index as it is.
CREATE TABLE usage (
    session_id TEXT COLLATE "C" NOT NULL,
    agent_id TEXT COLLATE "C" NOT NULL,
    sessions BIGINT NOT NULL DEFAULT 0,
    messages BIGINT NOT NULL DEFAULT 0,
    memory_entries BIGINT NOT NULL DEFAULT 0,
    bytes BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (session_id, agent_id)
) WITH (fillfactor = 50);
CREATE INDEX usage_by_agent ON usage (agent_id);

-- Until the end of this transaction nobody writes what the new triggers would not see.
LOCK TABLE sessions, messages, memory, tasks IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO usage (session_id, agent_id, sessions, messages, memory_entries, bytes)
SELECT session_id, agent_id, sum(sessions), sum(messages), sum(memory_entries), sum(bytes) FROM (
    SELECT id AS session_id, created_by AS agent_id, 1 AS sessions, 0 AS messages,
           0 AS memory_entries, (octet_length(purpose) + octet_length(metadata))::bigint AS bytes
    FROM sessions
    UNION ALL
    SELECT session_id, sender, 0, 1, 0,
           octet_length(content) + octet_length(metadata) + octet_length(recipients)
    FROM messages
    UNION ALL
    SELECT session_id, updated_by, 0, 0, 1, octet_length(key) + size_bytes + octet_length(metadata)
    FROM memory
    UNION ALL
    SELECT session_id, created_by, 0, 0, 0,
           octet_length(title) + octet_length(body) + octet_length(metadata) + octet_length(result)
    FROM tasks
) AS stored
WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE id = stored.session_id AND status = 'deleting')
GROUP BY session_id, agent_id;

CREATE FUNCTION measure(
    p_session_id TEXT, p_agent_id TEXT, p_sessions BIGINT, p_messages BIGINT,
    p_memory_entries BIGINT, p_bytes BIGINT
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage AS known (
        session_id, agent_id, sessions, messages, memory_entries, bytes)
    VALUES (p_session_id, p_agent_id, p_sessions, p_messages, p_memory_entries, p_bytes)
    ON CONFLICT (session_id, agent_id) DO UPDATE SET
        sessions = known.sessions + excluded.sessions,
        messages = known.messages + excluded.messages,
        memory_entries = known.memory_entries + excluded.memory_entries,
        bytes = known.bytes + excluded.bytes;
END $$;

-- What is in a deleted session goes with it, so its removal, which takes a while, counts nothing.
CREATE FUNCTION is_measured(p_session_id TEXT) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN NOT EXISTS (SELECT 1 FROM sessions WHERE id = p_session_id AND status = 'deleting');
END $$;

CREATE FUNCTION measure_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM measure(
            NEW.id, NEW.created_by, 1, 0, 0, octet_length(NEW.purpose) + octet_length(NEW.metadata));
    ELSE
        DELETE FROM usage WHERE session_id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sessions_are_measured AFTER INSERT ON sessions
    FOR EACH ROW EXECUTE FUNCTION measure_session();
CREATE TRIGGER deleted_sessions_are_not_measured AFTER UPDATE OF status ON sessions
    FOR EACH ROW WHEN (NEW.status = 'deleting') EXECUTE FUNCTION measure_session();

CREATE FUNCTION measure_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO usage AS known (session_id, agent_id, messages, bytes)
        VALUES (
            NEW.session_id, NEW.sender, 1,
            octet_length(NEW.content) + octet_length(NEW.metadata) + octet_length(NEW.recipients))
        ON CONFLICT (session_id, agent_id) DO UPDATE SET
            messages = known.messages + 1, bytes = known.bytes + excluded.bytes;
    ELSIF is_measured(OLD.session_id) THEN
        PERFORM measure(
            OLD.session_id, OLD.sender, 0, -1, 0,
            -octet_length(OLD.content) - octet_length(OLD.metadata) - octet_length(OLD.recipients));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER messages_are_measured AFTER INSERT OR DELETE ON messages
    FOR EACH ROW EXECUTE FUNCTION measure_message();

CREATE FUNCTION measure_memory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' THEN
        PERFORM measure(
            NEW.session_id, NEW.updated_by, 0, 0, 1,
            octet_length(NEW.key) + NEW.size_bytes + octet_length(NEW.metadata));
    END IF;
    IF TG_OP = 'UPDATE' OR (TG_OP = 'DELETE' AND is_measured(OLD.session_id)) THEN
        PERFORM measure(
            OLD.session_id, OLD.updated_by, 0, 0, -1,
            -octet_length(OLD.key) - OLD.size_bytes - octet_length(OLD.metadata));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER memory_is_measured AFTER INSERT OR UPDATE OR DELETE ON memory
    FOR EACH ROW EXECUTE FUNCTION measure_memory();

CREATE FUNCTION measure_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM measure(
            NEW.session_id, NEW.created_by, 0, 0, 0,
            octet_length(NEW.title) + octet_length(NEW.body) + octet_length(NEW.metadata)
            + octet_length(NEW.result));
    ELSE
        PERFORM measure(
            NEW.session_id, NEW.created_by, 0, 0, 0,
            octet_length(NEW.result) - octet_length(OLD.result));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tasks_are_measured AFTER INSERT ON tasks
    FOR EACH ROW EXECUTE FUNCTION measure_task();
CREATE TRIGGER results_of_tasks_are_measured AFTER UPDATE OF result ON tasks
    FOR EACH ROW WHEN (NEW.result <> OLD.result) EXECUTE FUNCTION measure_task();
