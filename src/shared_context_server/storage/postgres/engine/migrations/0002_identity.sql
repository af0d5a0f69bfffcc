-- The only type a key may be used with, NULL: any.
ALTER TABLE api_keys ADD COLUMN agent_type TEXT COLLATE "C";

-- The token that this one was refreshed from, by however many steps; NULL: it was issued for a key.
ALTER TABLE credentials ADD COLUMN origin_id TEXT COLLATE "C";
CREATE INDEX credentials_by_origin ON credentials (origin_id, expires_at) WHERE origin_id IS NOT NULL;

-- Whoever has written to one of the audience's names, and the seq of the first such message: the
-- participants that somebody who answers to the name may know of.
CREATE TABLE writers (
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    agent_id TEXT COLLATE "C" NOT NULL,
    first_seq BIGINT NOT NULL,
    PRIMARY KEY (session_id, name, agent_id)
);
-- Until the end of this transaction nobody adds a message that the new trigger would not see.
LOCK TABLE messages IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO writers (session_id, name, agent_id, first_seq)
    SELECT audience.session_id, audience.name, messages.sender, min(audience.seq)
    FROM audience JOIN messages USING (session_id, seq)
    GROUP BY audience.session_id, audience.name, messages.sender;

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
    END LOOP;
    INSERT INTO participants (session_id, agent_id, first_seq)
    VALUES (NEW.session_id, NEW.sender, NEW.seq)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
