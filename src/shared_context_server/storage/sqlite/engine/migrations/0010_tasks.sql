-- The tasks of the sessions. `id` numbers those of a session from 1. assignee '': any agent may claim it.
-- A row that is 'claimed' with an expires_at that has passed counts as ready; the next claim changes it.
-- waiting_for: how many of depends_on are not done. claimed_by stays when a claim has run out.
CREATE TABLE tasks (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    id INTEGER NOT NULL CHECK (id >= 1),
    version INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'blocked', 'claimed', 'done', 'failed')),
    priority INTEGER NOT NULL,
    assignee TEXT NOT NULL,
    waiting_for INTEGER NOT NULL CHECK (waiting_for >= 0),
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    claimed_by TEXT,
    instance TEXT NOT NULL,
    fencing_token INTEGER,
    expires_at INTEGER,
    finished_by TEXT,
    finished_at INTEGER,
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
    session_id TEXT NOT NULL,
    depends_on INTEGER NOT NULL,
    task_id INTEGER NOT NULL,
    PRIMARY KEY (session_id, depends_on, task_id)
) WITHOUT ROWID;
CREATE TRIGGER tasks_have_dependents AFTER INSERT ON tasks WHEN NEW.depends_on <> '[]' BEGIN
    INSERT INTO task_dependents (session_id, depends_on, task_id)
    SELECT NEW.session_id, value, NEW.id FROM json_each(NEW.depends_on);
END;

-- How many tasks of a session are in a state.
CREATE TABLE task_counts (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (session_id, state)
) WITHOUT ROWID;
CREATE TRIGGER tasks_are_counted AFTER INSERT ON tasks BEGIN
    INSERT INTO task_counts (session_id, state, count) VALUES (NEW.session_id, NEW.state, 1)
    ON CONFLICT (session_id, state) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER tasks_are_recounted AFTER UPDATE OF state ON tasks WHEN NEW.state <> OLD.state BEGIN
    UPDATE task_counts SET count = count - 1
    WHERE session_id = OLD.session_id AND state = OLD.state;
    INSERT INTO task_counts (session_id, state, count) VALUES (NEW.session_id, NEW.state, 1)
    ON CONFLICT (session_id, state) DO UPDATE SET count = count + 1;
END;
