-- SHA-256 over the entry and the hash before it; '': the entry is not in the chain. An insert leaves it
-- out, and the trigger sets it. So entries of replicas with an older version are chained too.
ALTER TABLE audit_log ADD COLUMN hash TEXT NOT NULL DEFAULT '';
ALTER TABLE audit_log ALTER COLUMN hash DROP DEFAULT;

-- The first entry of the chain makes the only row. Entries up to start_id are not in the chain, those up
-- to anchor_id were removed, head_id is the newest.
CREATE TABLE audit_chain (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    start_id BIGINT NOT NULL,
    anchor_id BIGINT NOT NULL,
    anchor_hash TEXT NOT NULL,
    head_id BIGINT NOT NULL,
    head_hash TEXT NOT NULL
);

-- A netstring: the length in bytes, a colon, the bytes, a comma.
CREATE FUNCTION netstring(field TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE AS $$
    SELECT octet_length(coalesce(field, '')) || ':' || coalesce(field, '') || ','
$$;

-- The lock on the row of the chain fixes the order of entries: it is held until the commit. The id is
-- taken under it, because ids of the sequence are not committed in their order.
CREATE FUNCTION chain_audit_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    chain audit_chain%ROWTYPE;
    last_id BIGINT;
BEGIN
    SELECT * INTO chain FROM audit_chain WHERE id = 1 FOR UPDATE;
    IF NOT FOUND THEN
        SELECT coalesce(max(id), 0) INTO last_id FROM audit_log;
        last_id := greatest(last_id, NEW.id - 1);
        INSERT INTO audit_chain (id, start_id, anchor_id, anchor_hash, head_id, head_hash)
        VALUES (1, last_id, last_id, '', last_id, '') ON CONFLICT (id) DO NOTHING;
        SELECT * INTO chain FROM audit_chain WHERE id = 1 FOR UPDATE;
    END IF;
    SELECT coalesce(max(id), 0) INTO last_id FROM audit_log;
    NEW.id := greatest(chain.head_id, last_id) + 1;
    -- The same as storage/rules/audit_chain.py.
    NEW.hash := encode(sha256(convert_to(
        netstring(chain.head_hash) || netstring(NEW.id::text) || netstring(NEW.created_at::text)
        || netstring(NEW.event_type) || netstring(NEW.agent_id) || netstring(NEW.session_id)
        || netstring(NEW.details), 'UTF8')), 'hex');
    UPDATE audit_chain SET head_id = NEW.id, head_hash = NEW.hash WHERE id = 1;
    RETURN NEW;
END $$;
CREATE TRIGGER chain_audit_entry BEFORE INSERT ON audit_log
    FOR EACH ROW WHEN (NEW.hash IS NULL) EXECUTE FUNCTION chain_audit_entry();
