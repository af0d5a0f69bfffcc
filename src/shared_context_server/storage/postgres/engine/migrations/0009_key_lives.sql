-- 'pattern': agent_id is a pattern, in which * stands for any characters. NULL: it is one agent.
ALTER TABLE api_keys ADD COLUMN binding TEXT;
ALTER TABLE api_keys ADD COLUMN expires_at BIGINT;
-- At most once a minute.
ALTER TABLE api_keys ADD COLUMN last_used_at BIGINT;
-- A note of the operator's.
ALTER TABLE api_keys ADD COLUMN label TEXT;
-- The id of the key that a rotation made.
ALTER TABLE api_keys ADD COLUMN replaced_by TEXT COLLATE "C";
