-- One row, which is written to learn whether the database can be written.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    written_at INTEGER NOT NULL
);
INSERT INTO heartbeat (id, written_at) VALUES (1, 0);
