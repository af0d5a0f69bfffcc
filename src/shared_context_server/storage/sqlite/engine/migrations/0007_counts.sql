-- Beside each name a message is addressed to stands the same name with its sender, so that the
-- messages of one sender can be paged and counted as those of all are. No id contains U+001F.
DROP TRIGGER messages_are_addressed;
DROP TRIGGER audience_has_writers;
CREATE TRIGGER messages_are_addressed AFTER INSERT ON messages BEGIN
    INSERT INTO audience (session_id, name, seq, created_at, ordinal)
    SELECT NEW.session_id, addressed.name || suffixes.suffix, NEW.seq, NEW.created_at, 1 + coalesce((
        SELECT earlier.ordinal FROM audience AS earlier
        WHERE earlier.session_id = NEW.session_id
          AND earlier.name = addressed.name || suffixes.suffix
        ORDER BY earlier.seq DESC LIMIT 1
    ), 0)
    FROM (
        SELECT '*' AS name WHERE NEW.visibility = 'public'
        UNION SELECT 'type:' || NEW.sender_type WHERE NEW.visibility = 'agent_only'
        UNION SELECT 'agent:' || NEW.sender WHERE NEW.visibility = 'private'
        UNION SELECT 'agent:' || value FROM json_each(NEW.recipients)
            WHERE NEW.visibility = 'private'
    ) AS addressed,
    (SELECT '' AS suffix UNION ALL SELECT char(31) || NEW.sender) AS suffixes;
END;
INSERT INTO audience (session_id, name, seq, created_at, ordinal)
SELECT a.session_id, a.name || char(31) || m.sender, a.seq, a.created_at,
       row_number() OVER (PARTITION BY a.session_id, a.name, m.sender ORDER BY a.seq)
FROM audience AS a JOIN messages AS m ON m.session_id = a.session_id AND m.seq = a.seq;
CREATE TRIGGER audience_has_writers AFTER INSERT ON audience
WHEN instr(NEW.name, char(31)) = 0 BEGIN
    INSERT OR IGNORE INTO writers (session_id, name, agent_id, first_seq)
    SELECT NEW.session_id, NEW.name, messages.sender, NEW.seq FROM messages
    WHERE messages.session_id = NEW.session_id AND messages.seq = NEW.seq;
END;

-- The times of each thousand messages of a session, once they are complete, so that a range of times
-- is sought in those that it meets. They follow no order: clocks differ, and are set.
CREATE TABLE time_ranges (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    up_to_seq INTEGER NOT NULL,
    earliest INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    PRIMARY KEY (session_id, up_to_seq)
) WITHOUT ROWID;
CREATE TRIGGER messages_have_times AFTER INSERT ON messages WHEN NEW.seq % 1000 = 0 BEGIN
    INSERT INTO time_ranges (session_id, up_to_seq, earliest, latest)
    SELECT NEW.session_id, NEW.seq, min(created_at), max(created_at)
    FROM messages INDEXED BY messages_by_seq
    WHERE session_id = NEW.session_id AND seq > NEW.seq - 1000 AND seq <= NEW.seq;
END;
INSERT INTO time_ranges (session_id, up_to_seq, earliest, latest)
SELECT session_id, (seq + 999) / 1000 * 1000 AS up_to, min(created_at), max(created_at)
FROM messages GROUP BY session_id, up_to HAVING max(seq) = up_to;
