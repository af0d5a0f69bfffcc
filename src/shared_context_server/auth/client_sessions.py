"""Mcp-Session-Id in stateless mode: the client's own name, signed, so that no process keeps it.

Clients of the handshake era say their name once, in initialize. The id they are given there comes
back with every later request and holds the name. It is a name and no credential: it names only who
has already shown a key, and with a key everybody may choose a name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from shared_context_server.auth.agent_names import clean_agent_name
from shared_context_server.models import MAX_AGENT_ID_CHARS

_PREFIX = "scs-"
_MAC_BYTES = 16
_NONCE_BYTES = 6  # ids of clients with one name differ, as the protocol asks
_PURPOSE = b"shared-context-server mcp session id"
MAX_ID_CHARS = 768  # a name of 128 characters of 4 bytes each, nonce and MAC, in base64
assert (
    len(_PREFIX) + (MAX_AGENT_ID_CHARS * 4 + _NONCE_BYTES + _MAC_BYTES) * 4 // 3 + 4 < MAX_ID_CHARS
)


class ClientSessions:
    """Makes and reads the ids of one secret: every process that has it reads them, at any time."""

    def __init__(self, secret: bytes) -> None:
        # A key of its own: nothing that is signed here counts as anything signed elsewhere.
        self._key = hmac.new(secret, _PURPOSE, hashlib.sha256).digest()

    def make_id(self, client_name: object) -> str | None:
        """An id that holds the agent id a client of this name has; None for what names nobody."""
        agent_id = clean_agent_name(client_name) if isinstance(client_name, str) else None
        if agent_id is None:
            return None
        try:
            content = secrets.token_bytes(_NONCE_BYTES) + agent_id.encode()
        except UnicodeEncodeError:
            return None
        signed = self._sign(content) + content
        return _PREFIX + base64.urlsafe_b64encode(signed).rstrip(b"=").decode()

    def read_name(self, session_id: str) -> str | None:
        """The name in an id that was made with this secret; None for every other text."""
        if len(session_id) > MAX_ID_CHARS or not session_id.startswith(_PREFIX):
            return None
        encoded = session_id.removeprefix(_PREFIX)
        try:
            signed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        mac, content = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._sign(content)):
            return None
        return content[_NONCE_BYTES:].decode()

    def _sign(self, content: bytes) -> bytes:
        return hmac.new(self._key, content, hashlib.sha256).digest()[:_MAC_BYTES]
