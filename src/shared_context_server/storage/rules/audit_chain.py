"""The hash chain of the audit log: each entry has a hash over itself and the hash before it.

What is hashed with SHA-256 is a fixed form of seven fields, each as a netstring
(https://cr.yp.to/proto/netstrings.txt: the length in bytes, a colon, the bytes, a comma): the hash of
the entry before, id, created_at in microseconds since 1970, event_type, agent_id, session_id, and
details as they are stored, that is JSON without spaces. Texts are UTF-8, numbers decimal, and a missing
session_id is empty. The first entry of a chain has an empty hash before it. The lengths keep two
different entries from having the same form.
"""

from __future__ import annotations

from hashlib import sha256

from shared_context_server.storage.codec import Row

NO_HASH = "no hash"
"""In place of the hash of what no version has written, such as bytes in place of a text."""


def hash_entry(previous_hash: str, id_: int, content: Row) -> str:
    """Return the hash in hex, or NO_HASH. `content`: created_at, event_type, agent_id, session_id,
    details."""
    created_at, event_type, agent_id, session_id, details = content
    fields = (
        *(previous_hash, str(id_), str(created_at)),
        *(event_type, agent_id, session_id or "", details),
    )
    try:
        encoded = [field.encode() for field in fields]
    except (AttributeError, UnicodeEncodeError):
        return NO_HASH
    return sha256(b"".join(b"%d:%b," % (len(field), field) for field in encoded)).hexdigest()
