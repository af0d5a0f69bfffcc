-- By boot of a machine: the largest difference between its system clock and the time since then, so
-- that a process which starts after the clock was set back does not begin anew with what is left of it.
CREATE TABLE clock_offsets (
    boot_id TEXT COLLATE "C" PRIMARY KEY,
    offset_us BIGINT NOT NULL
);
