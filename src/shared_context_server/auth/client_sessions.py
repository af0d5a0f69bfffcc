"""Mcp-Session-Id in stateless mode: it contains the client's own name, signed.

Older clients send their name only once, in initialize. They send the session id with every later
request, so no process has to keep the name. The id is not a credential: it only names a caller who
also presents a key, and with a key every caller may choose a name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from shared_context_server.auth.agent_names import clean_agent_name
from shared_context_server.models import MAX_AGENT_ID_CHARS

_PREFIX = "scs-"
_MAC_BYTES = 16
_NONCE_BYTES = 6  # clients of the same name get different ids, as the protocol requires
_PURPOSE = b"shared-context-server mcp session id"
MAX_ID_CHARS = 768  # a name of 128 characters of 4 bytes each, nonce and MAC, in base64
assert (
    len(_PREFIX) + (MAX_AGENT_ID_CHARS * 4 + _NONCE_BYTES + _MAC_BYTES) * 4 // 3 + 4 < MAX_ID_CHARS
)


class ClientSessions:
    """Makes and reads session ids. Every process with the same secret can read them, and those made
    with previous secrets."""

    def __init__(self, secret: bytes, previous: Sequence[bytes] = ()) -> None:
        # Separate keys, so that a signature is not valid for any other purpose.
        self._keys = [
            hmac.new(one, _PURPOSE, hashlib.sha256).digest() for one in (secret, *previous)
        ]

    def make_id(self, client_name: object) -> str | None:
        """An id that contains the agent id for this client name; None if there is none."""
        agent_id = clean_agent_name(client_name) if isinstance(client_name, str) else None
        if agent_id is None:
            return None
        try:
            content = secrets.token_bytes(_NONCE_BYTES) + agent_id.encode()
        except UnicodeEncodeError:
            return None
        signed = _sign(self._keys[0], content) + content
        return _PREFIX + base64.urlsafe_b64encode(signed).rstrip(b"=").decode()

    def read_name(self, session_id: str) -> str | None:
        """The name in an id of this secret; None for any other text."""
        if len(session_id) > MAX_ID_CHARS or not session_id.startswith(_PREFIX):
            return None
        encoded = session_id.removeprefix(_PREFIX)
        try:
            signed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        mac, content = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
        if not any(hmac.compare_digest(mac, _sign(key, content)) for key in self._keys):
            return None
        return content[_NONCE_BYTES:].decode()


def _sign(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()[:_MAC_BYTES]
