-- session_id '' is server-wide. A row outlives its lease, so that its fencing tokens only grow;
-- holder NULL: released. No foreign key, for there is no session ''.
CREATE TABLE leases (
    session_id TEXT NOT NULL,
    name TEXT NOT NULL,
    holder TEXT,
    fencing_token INTEGER NOT NULL CHECK (fencing_token >= 1),
    acquired_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (session_id, name)
) WITHOUT ROWID;
-- Listing reads past no lease that has ended.
CREATE INDEX leases_held ON leases (session_id, expires_at) WHERE holder IS NOT NULL;
