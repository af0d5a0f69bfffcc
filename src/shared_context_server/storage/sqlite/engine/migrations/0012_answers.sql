-- 'required': the message asks for an acknowledgement. 'given': it is its sender's acknowledgement of its
-- parent.
ALTER TABLE messages ADD COLUMN ack TEXT NOT NULL DEFAULT ''
    CHECK (ack IN ('', 'required', 'given'));
CREATE UNIQUE INDEX acknowledgements ON messages (session_id, parent_message_id, sender)
    WHERE ack = 'given';

-- A JSON array of the patterns of the paths that the lease protects; '[]': it has none.
ALTER TABLE leases ADD COLUMN paths TEXT NOT NULL DEFAULT '[]';
CREATE INDEX leases_on_paths ON leases (session_id, expires_at)
    WHERE holder IS NOT NULL AND paths <> '[]';
