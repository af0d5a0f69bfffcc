-- How much each agent has stored in each session; session_id '': outside of sessions. Messages are counted
-- in participants, whose row is looked up for each of them anyway, everything else in usage. There is no row
-- for a whole session or agent, so that writes of one agent to several sessions do not wait for each other.
-- Triggers count in the transaction of the write. `bytes`: of texts, in UTF-8.

-- Until the end of this transaction nobody writes what the new triggers would not see.
LOCK TABLE sessions, messages, memory, tasks IN SHARE ROW EXCLUSIVE MODE;

-- The free space in the pages lets an update leave the indexes as they are.
ALTER TABLE participants ADD COLUMN messages BIGINT NOT NULL DEFAULT 0;
ALTER TABLE participants ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE participants SET (fillfactor = 50);
CREATE INDEX participants_by_agent ON participants (agent_id);

CREATE TABLE usage (
    session_id TEXT COLLATE "C" NOT NULL,
    agent_id TEXT COLLATE "C" NOT NULL,
    sessions BIGINT NOT NULL DEFAULT 0,
    memory_entries BIGINT NOT NULL DEFAULT 0,
    bytes BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (session_id, agent_id)
) WITH (fillfactor = 50);
CREATE INDEX usage_by_agent ON usage (agent_id);

UPDATE participants SET messages = counted.messages, bytes = counted.bytes FROM (
    SELECT session_id, sender, count(*) AS messages,
           sum(octet_length(content) + octet_length(metadata) + octet_length(recipients)) AS bytes
    FROM messages GROUP BY session_id, sender
) AS counted
WHERE participants.session_id = counted.session_id AND participants.agent_id = counted.sender;
INSERT INTO usage (session_id, agent_id, sessions, memory_entries, bytes)
SELECT session_id, agent_id, sum(sessions), sum(memory_entries), sum(bytes) FROM (
    SELECT id AS session_id, created_by AS agent_id, 1 AS sessions, 0 AS memory_entries,
           (octet_length(purpose) + octet_length(metadata))::bigint AS bytes
    FROM sessions
    UNION ALL
    SELECT session_id, updated_by, 0, 1, octet_length(key) + size_bytes + octet_length(metadata)
    FROM memory
    UNION ALL
    SELECT session_id, created_by, 0, 0,
           octet_length(title) + octet_length(body) + octet_length(metadata) + octet_length(result)
    FROM tasks
) AS stored
WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE id = stored.session_id AND status = 'deleting')
GROUP BY session_id, agent_id;

CREATE FUNCTION measure(
    p_session_id TEXT, p_agent_id TEXT, p_sessions BIGINT, p_memory_entries BIGINT, p_bytes BIGINT
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage AS known (session_id, agent_id, sessions, memory_entries, bytes)
    VALUES (p_session_id, p_agent_id, p_sessions, p_memory_entries, p_bytes)
    ON CONFLICT (session_id, agent_id) DO UPDATE SET
        sessions = known.sessions + excluded.sessions,
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
            NEW.id, NEW.created_by, 1, 0, octet_length(NEW.purpose) + octet_length(NEW.metadata));
    ELSE
        DELETE FROM usage WHERE session_id = NEW.id;
        DELETE FROM participants WHERE session_id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sessions_are_measured AFTER INSERT ON sessions
    FOR EACH ROW EXECUTE FUNCTION measure_session();
CREATE TRIGGER deleted_sessions_are_not_measured AFTER UPDATE OF status ON sessions
    FOR EACH ROW WHEN (NEW.status = 'deleting') EXECUTE FUNCTION measure_session();

-- As before, and with what the participant has written.
CREATE OR REPLACE FUNCTION address_message() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_names TEXT[];
    v_name TEXT;
    v_ordinal BIGINT;
BEGIN
    CASE NEW.visibility
        WHEN 'public' THEN v_names := ARRAY['*'];
        WHEN 'agent_only' THEN v_names := ARRAY['type:' || NEW.sender_type];
        WHEN 'private' THEN v_names := ARRAY(
            SELECT 'agent:' || NEW.sender
            UNION SELECT 'agent:' || recipient
                FROM json_array_elements_text(NEW.recipients::json) AS recipient
        );
        ELSE v_names := '{}';
    END CASE;
    -- Name by name, because PostgreSQL would plan a statement over all of them anew at each call,
    -- which took more time than the rest of adding a message.
    FOREACH v_name IN ARRAY v_names LOOP
        SELECT earlier.ordinal INTO v_ordinal FROM audience AS earlier
        WHERE earlier.session_id = NEW.session_id AND earlier.name = v_name
        ORDER BY earlier.seq DESC LIMIT 1;
        INSERT INTO audience (session_id, name, seq, created_at, ordinal)
        VALUES (NEW.session_id, v_name, NEW.seq, NEW.created_at, 1 + coalesce(v_ordinal, 0));
        INSERT INTO writers (session_id, name, agent_id, first_seq)
        VALUES (NEW.session_id, v_name, NEW.sender, NEW.seq)
        ON CONFLICT DO NOTHING;
        v_name := v_name || chr(31) || NEW.sender;
        SELECT earlier.ordinal INTO v_ordinal FROM audience AS earlier
        WHERE earlier.session_id = NEW.session_id AND earlier.name = v_name
        ORDER BY earlier.seq DESC LIMIT 1;
        INSERT INTO audience (session_id, name, seq, created_at, ordinal)
        VALUES (NEW.session_id, v_name, NEW.seq, NEW.created_at, 1 + coalesce(v_ordinal, 0));
    END LOOP;
    INSERT INTO participants AS known (session_id, agent_id, first_seq, messages, bytes)
    VALUES (
        NEW.session_id, NEW.sender, NEW.seq, 1,
        octet_length(NEW.content) + octet_length(NEW.metadata) + octet_length(NEW.recipients))
    ON CONFLICT (session_id, agent_id) DO UPDATE SET
        messages = known.messages + 1, bytes = known.bytes + excluded.bytes;
    IF NEW.seq % 1000 = 0 THEN
        INSERT INTO time_ranges (session_id, up_to_seq, earliest, latest)
        SELECT NEW.session_id, NEW.seq, min(m.created_at), max(m.created_at) FROM messages AS m
        WHERE m.session_id = NEW.session_id AND m.seq > NEW.seq - 1000 AND m.seq <= NEW.seq;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION forget_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF is_measured(OLD.session_id) THEN
        UPDATE participants SET messages = messages - 1, bytes = bytes
            - octet_length(OLD.content) - octet_length(OLD.metadata) - octet_length(OLD.recipients)
        WHERE session_id = OLD.session_id AND agent_id = OLD.sender;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER removed_messages_are_not_measured AFTER DELETE ON messages
    FOR EACH ROW EXECUTE FUNCTION forget_message();

CREATE FUNCTION measure_memory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' THEN
        PERFORM measure(
            NEW.session_id, NEW.updated_by, 0, 1,
            octet_length(NEW.key) + NEW.size_bytes + octet_length(NEW.metadata));
    END IF;
    IF TG_OP = 'UPDATE' OR (TG_OP = 'DELETE' AND is_measured(OLD.session_id)) THEN
        PERFORM measure(
            OLD.session_id, OLD.updated_by, 0, -1,
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
            NEW.session_id, NEW.created_by, 0, 0,
            octet_length(NEW.title) + octet_length(NEW.body) + octet_length(NEW.metadata)
            + octet_length(NEW.result));
    ELSE
        PERFORM measure(
            NEW.session_id, NEW.created_by, 0, 0,
            octet_length(NEW.result) - octet_length(OLD.result));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tasks_are_measured AFTER INSERT ON tasks
    FOR EACH ROW EXECUTE FUNCTION measure_task();
CREATE TRIGGER results_of_tasks_are_measured AFTER UPDATE OF result ON tasks
    FOR EACH ROW WHEN (NEW.result <> OLD.result) EXECUTE FUNCTION measure_task();
