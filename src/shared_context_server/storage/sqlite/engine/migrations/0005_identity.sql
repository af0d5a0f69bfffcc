-- The only type a key may be used with, NULL: any.
ALTER TABLE api_keys ADD COLUMN agent_type TEXT;

-- The token that this one was refreshed from, by however many steps; NULL: it was issued for a key.
ALTER TABLE credentials ADD COLUMN origin_id TEXT;
CREATE INDEX credentials_by_origin ON credentials (origin_id, expires_at) WHERE origin_id IS NOT NULL;

-- Whoever has written to one of the audience's names, and the seq of the first such message: the
-- participants that somebody who answers to the name may know of.
CREATE TABLE writers (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    PRIMARY KEY (session_id, name, agent_id)
) WITHOUT ROWID;
INSERT INTO writers (session_id, name, agent_id, first_seq)
    SELECT audience.session_id, audience.name, messages.sender, min(audience.seq)
    FROM audience JOIN messages USING (session_id, seq)
    GROUP BY audience.session_id, audience.name, messages.sender;
CREATE TRIGGER audience_has_writers AFTER INSERT ON audience BEGIN
    INSERT OR IGNORE INTO writers (session_id, name, agent_id, first_seq)
    SELECT NEW.session_id, NEW.name, messages.sender, NEW.seq FROM messages
    WHERE messages.session_id = NEW.session_id AND messages.seq = NEW.seq;
END;
