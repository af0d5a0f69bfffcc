-- Beside each name a message is addressed to stands the same name with its sender, so that the
-- messages of one sender can be paged and counted as those of all are. No id contains U+001F.
-- The times of each thousand messages of a session, once they are complete, are kept so that a range
-- of times is sought in those that it meets. They follow no order: clocks differ, and are set.
CREATE TABLE time_ranges (
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    up_to_seq BIGINT NOT NULL,
    earliest BIGINT NOT NULL,
    latest BIGINT NOT NULL,
    PRIMARY KEY (session_id, up_to_seq)
);

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
    INSERT INTO participants (session_id, agent_id, first_seq)
    VALUES (NEW.session_id, NEW.sender, NEW.seq)
    ON CONFLICT DO NOTHING;
    IF NEW.seq % 1000 = 0 THEN
        INSERT INTO time_ranges (session_id, up_to_seq, earliest, latest)
        SELECT NEW.session_id, NEW.seq, min(m.created_at), max(m.created_at) FROM messages AS m
        WHERE m.session_id = NEW.session_id AND m.seq > NEW.seq - 1000 AND m.seq <= NEW.seq;
    END IF;
    RETURN NULL;
END $$;

INSERT INTO audience (session_id, name, seq, created_at, ordinal)
SELECT a.session_id, a.name || chr(31) || m.sender, a.seq, a.created_at,
       row_number() OVER (PARTITION BY a.session_id, a.name, m.sender ORDER BY a.seq)
FROM audience AS a JOIN messages AS m ON m.session_id = a.session_id AND m.seq = a.seq;
INSERT INTO time_ranges (session_id, up_to_seq, earliest, latest)
SELECT session_id, (seq + 999) / 1000 * 1000, min(created_at), max(created_at)
FROM messages GROUP BY 1, 2 HAVING max(seq) = (max(seq) + 999) / 1000 * 1000;
