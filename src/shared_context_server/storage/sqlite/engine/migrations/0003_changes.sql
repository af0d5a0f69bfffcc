-- What other processes are told of, beside messages, whose own ids serve for that. The newest rows
-- only: purge removes the others. Ids have no gaps, so that a reader sees when it has come too late.
CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    session_id TEXT,
    name TEXT,
    owner TEXT,
    agent_id TEXT
);

CREATE TRIGGER sessions_are_created AFTER INSERT ON sessions BEGIN
    INSERT INTO changes (kind, session_id) VALUES ('session_created', NEW.id);
END;
CREATE TRIGGER sessions_are_ended AFTER UPDATE OF status ON sessions
WHEN NEW.status IN ('closed', 'deleting') AND NEW.status <> OLD.status BEGIN
    INSERT INTO changes (kind, session_id) VALUES (
        CASE NEW.status WHEN 'closed' THEN 'session_closed' ELSE 'session_deleted' END, NEW.id
    );
END;

CREATE TRIGGER memory_is_made AFTER INSERT ON memory BEGIN
    INSERT INTO changes (kind, session_id, name, owner)
    VALUES ('memory_changed', nullif(NEW.session_id, ''), NEW.key, nullif(NEW.owner, ''));
END;
CREATE TRIGGER memory_is_replaced AFTER UPDATE ON memory BEGIN
    INSERT INTO changes (kind, session_id, name, owner)
    VALUES ('memory_changed', nullif(NEW.session_id, ''), NEW.key, nullif(NEW.owner, ''));
END;
-- Not what goes with its session: that is one change, not one an entry.
CREATE TRIGGER memory_is_removed AFTER DELETE ON memory
WHEN NOT EXISTS (SELECT 1 FROM sessions WHERE id = OLD.session_id AND status = 'deleting') BEGIN
    INSERT INTO changes (kind, session_id, name, owner)
    VALUES ('memory_changed', nullif(OLD.session_id, ''), OLD.key, nullif(OLD.owner, ''));
END;

CREATE TRIGGER leases_are_taken AFTER INSERT ON leases BEGIN
    INSERT INTO changes (kind, session_id, name)
    VALUES ('lease_changed', nullif(NEW.session_id, ''), NEW.name);
END;
CREATE TRIGGER leases_are_changed AFTER UPDATE ON leases BEGIN
    INSERT INTO changes (kind, session_id, name)
    VALUES ('lease_changed', nullif(NEW.session_id, ''), NEW.name);
END;
