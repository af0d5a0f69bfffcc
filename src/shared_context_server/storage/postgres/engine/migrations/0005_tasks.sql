-- The tasks of the sessions. `id` numbers those of a session from 1. assignee '': any agent may claim it.
-- A row that is 'claimed' with an expires_at that has passed counts as ready; the next claim changes it.
-- waiting_for: how many of depends_on are not done. claimed_by stays when a claim has run out.
-- The session's row is locked by whatever writes here.
CREATE TABLE tasks (
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    id BIGINT NOT NULL CHECK (id >= 1),
    version BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL
        CHECK (state IN ('ready', 'blocked', 'claimed', 'done', 'failed')),
    priority BIGINT NOT NULL,
    assignee TEXT COLLATE "C" NOT NULL,
    waiting_for BIGINT NOT NULL CHECK (waiting_for >= 0),
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    claimed_by TEXT COLLATE "C",
    instance TEXT COLLATE "C" NOT NULL,
    fencing_token BIGINT,
    expires_at BIGINT,
    finished_by TEXT COLLATE "C",
    finished_at BIGINT,
    depends_on TEXT NOT NULL,
    title TEXT NOT NULL,
    metadata TEXT NOT NULL,
    body TEXT NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (session_id, id)
);
CREATE INDEX tasks_ready ON tasks (session_id, assignee, priority DESC, id) WHERE state = 'ready';
CREATE INDEX tasks_claimed ON tasks (session_id, expires_at) WHERE state = 'claimed';
CREATE INDEX tasks_by_state ON tasks (session_id, state, id);
CREATE INDEX tasks_by_assignee ON tasks (session_id, assignee, state, id) WHERE assignee <> '';

-- The tasks that depend on a task; depends_on of tasks has the other direction.
CREATE TABLE task_dependents (
    session_id TEXT COLLATE "C" NOT NULL,
    depends_on BIGINT NOT NULL,
    task_id BIGINT NOT NULL,
    PRIMARY KEY (session_id, depends_on, task_id)
);

-- How many tasks of a session are in a state.
CREATE TABLE task_counts (
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    state TEXT COLLATE "C" NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (session_id, state)
);

CREATE FUNCTION count_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.depends_on <> '[]' THEN
            INSERT INTO task_dependents (session_id, depends_on, task_id)
            SELECT NEW.session_id, value::bigint, NEW.id
            FROM json_array_elements_text(NEW.depends_on::json);
        END IF;
    ELSE
        UPDATE task_counts SET count = count - 1
        WHERE session_id = OLD.session_id AND state = OLD.state;
    END IF;
    INSERT INTO task_counts AS known (session_id, state, count)
    VALUES (NEW.session_id, NEW.state, 1)
    ON CONFLICT (session_id, state) DO UPDATE SET count = known.count + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER tasks_are_counted AFTER INSERT ON tasks
    FOR EACH ROW EXECUTE FUNCTION count_task();
CREATE TRIGGER tasks_are_recounted AFTER UPDATE OF state ON tasks
    FOR EACH ROW WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION count_task();
