-- SHA-256 over the entry and the hash before it; '': the entry is not in the chain.
ALTER TABLE audit_log ADD COLUMN hash TEXT NOT NULL DEFAULT '';

-- The first entry of the chain makes the only row. Entries up to start_id are not in the chain, those up
-- to anchor_id were removed, head_id is the newest.
CREATE TABLE audit_chain (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    start_id INTEGER NOT NULL,
    anchor_id INTEGER NOT NULL,
    anchor_hash TEXT NOT NULL,
    head_id INTEGER NOT NULL,
    head_hash TEXT NOT NULL
);
