-- Whether the agent's coming has been told and its going not yet.
ALTER TABLE agents ADD COLUMN is_around INTEGER NOT NULL DEFAULT FALSE;
CREATE INDEX agents_around ON agents (last_seen) WHERE is_around;
