-- How much each agent has stored in each session; session_id '': outside of sessions. Messages are counted
-- in participants, whose row is looked up for each of them anyway, everything else in usage. There is no row
-- for a whole session or agent, so that writes of one agent to several sessions do not wait for each other on
-- PostgreSQL. Triggers count in the transaction of the write. `bytes`: of texts, in UTF-8.
ALTER TABLE participants ADD COLUMN messages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE participants ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX participants_by_agent ON participants (agent_id);
UPDATE participants SET messages = counted.messages, bytes = counted.bytes FROM (
    SELECT session_id, sender, count(*) AS messages,
           sum(length(CAST(content AS BLOB)) + length(CAST(metadata AS BLOB))
               + length(CAST(recipients AS BLOB))) AS bytes
    FROM messages GROUP BY session_id, sender
) AS counted
WHERE participants.session_id = counted.session_id AND participants.agent_id = counted.sender;
CREATE TABLE usage (
    session_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    sessions INTEGER NOT NULL DEFAULT 0,
    memory_entries INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session_id, agent_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_agent ON usage (agent_id);

INSERT INTO usage (session_id, agent_id, sessions, memory_entries, bytes)
SELECT session_id, agent_id, sum(sessions), sum(memory_entries), sum(bytes) FROM (
    SELECT id AS session_id, created_by AS agent_id, 1 AS sessions, 0 AS memory_entries,
           length(CAST(purpose AS BLOB)) + length(CAST(metadata AS BLOB)) AS bytes
    FROM sessions
    UNION ALL
    SELECT session_id, updated_by, 0, 1,
           length(CAST(key AS BLOB)) + size_bytes + length(CAST(metadata AS BLOB))
    FROM memory
    UNION ALL
    SELECT session_id, created_by, 0, 0,
           length(CAST(title AS BLOB)) + length(CAST(body AS BLOB)) + length(CAST(metadata AS BLOB))
           + length(CAST(result AS BLOB))
    FROM tasks
)
WHERE session_id NOT IN (SELECT id FROM sessions WHERE status = 'deleting')
GROUP BY session_id, agent_id;

CREATE TRIGGER sessions_are_measured AFTER INSERT ON sessions BEGIN
    INSERT INTO usage (session_id, agent_id, sessions, bytes)
    VALUES (NEW.id, NEW.created_by, 1,
            length(CAST(NEW.purpose AS BLOB)) + length(CAST(NEW.metadata AS BLOB)))
    ON CONFLICT (session_id, agent_id) DO UPDATE
    SET sessions = sessions + 1, bytes = bytes + excluded.bytes;
END;
-- What is in the session goes with it, so its removal, which takes a while, counts nothing.
CREATE TRIGGER deleted_sessions_are_not_measured AFTER UPDATE OF status ON sessions
WHEN NEW.status = 'deleting' BEGIN
    DELETE FROM usage WHERE session_id = NEW.id;
    DELETE FROM participants WHERE session_id = NEW.id;
END;

DROP TRIGGER messages_have_writers;
CREATE TRIGGER messages_have_writers AFTER INSERT ON messages BEGIN
    INSERT INTO participants (session_id, agent_id, first_seq, messages, bytes)
    VALUES (NEW.session_id, NEW.sender, NEW.seq, 1,
            length(CAST(NEW.content AS BLOB)) + length(CAST(NEW.metadata AS BLOB))
            + length(CAST(NEW.recipients AS BLOB)))
    ON CONFLICT (session_id, agent_id) DO UPDATE
    SET messages = messages + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER removed_messages_are_not_measured AFTER DELETE ON messages
WHEN EXISTS (SELECT 1 FROM sessions WHERE id = OLD.session_id AND status <> 'deleting') BEGIN
    UPDATE participants SET messages = messages - 1, bytes = bytes - (
        length(CAST(OLD.content AS BLOB)) + length(CAST(OLD.metadata AS BLOB))
        + length(CAST(OLD.recipients AS BLOB)))
    WHERE session_id = OLD.session_id AND agent_id = OLD.sender;
END;

CREATE TRIGGER memory_is_measured AFTER INSERT ON memory BEGIN
    INSERT INTO usage (session_id, agent_id, memory_entries, bytes)
    VALUES (NEW.session_id, NEW.updated_by, 1,
            length(CAST(NEW.key AS BLOB)) + NEW.size_bytes + length(CAST(NEW.metadata AS BLOB)))
    ON CONFLICT (session_id, agent_id) DO UPDATE
    SET memory_entries = memory_entries + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER replaced_memory_is_measured AFTER UPDATE ON memory BEGIN
    UPDATE usage SET memory_entries = memory_entries - 1, bytes = bytes - (
        length(CAST(OLD.key AS BLOB)) + OLD.size_bytes + length(CAST(OLD.metadata AS BLOB)))
    WHERE session_id = OLD.session_id AND agent_id = OLD.updated_by;
    INSERT INTO usage (session_id, agent_id, memory_entries, bytes)
    VALUES (NEW.session_id, NEW.updated_by, 1,
            length(CAST(NEW.key AS BLOB)) + NEW.size_bytes + length(CAST(NEW.metadata AS BLOB)))
    ON CONFLICT (session_id, agent_id) DO UPDATE
    SET memory_entries = memory_entries + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER removed_memory_is_not_measured AFTER DELETE ON memory
WHEN NOT EXISTS (SELECT 1 FROM sessions WHERE id = OLD.session_id AND status = 'deleting') BEGIN
    UPDATE usage SET memory_entries = memory_entries - 1, bytes = bytes - (
        length(CAST(OLD.key AS BLOB)) + OLD.size_bytes + length(CAST(OLD.metadata AS BLOB)))
    WHERE session_id = OLD.session_id AND agent_id = OLD.updated_by;
END;

CREATE TRIGGER tasks_are_measured AFTER INSERT ON tasks BEGIN
    INSERT INTO usage (session_id, agent_id, bytes)
    VALUES (NEW.session_id, NEW.created_by,
            length(CAST(NEW.title AS BLOB)) + length(CAST(NEW.body AS BLOB))
            + length(CAST(NEW.metadata AS BLOB)) + length(CAST(NEW.result AS BLOB)))
    ON CONFLICT (session_id, agent_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER results_of_tasks_are_measured AFTER UPDATE OF result ON tasks
WHEN NEW.result <> OLD.result BEGIN
    UPDATE usage
    SET bytes = bytes + length(CAST(NEW.result AS BLOB)) - length(CAST(OLD.result AS BLOB))
    WHERE session_id = NEW.session_id AND agent_id = NEW.created_by;
END;
