"""One-time links that sign a person in to the dashboard.

A code is stored like a token that was never signed: as the hash of its text, with an expiry. To redeem
it is to revoke it, which one process of all that share the store succeeds in. So a code works once, in
any process, and opens nothing but a sign-in.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity, IssuedToken
from shared_context_server.auth.tokens import hash_handle, make_credential_id
from shared_context_server.errors import Unauthenticated
from shared_context_server.models import AuditEntry, Caller, Credential
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import Store

LINK_LIFE = timedelta(minutes=2)
MAX_CODE_CHARS = 100
_PREFIX = "ui_"
_CODE_BYTES = 24


async def issue_code(store: Store, caller: Caller) -> str:
    """Return a new code that signs in as this caller, once, within LINK_LIFE."""
    code = _PREFIX + secrets.token_urlsafe(_CODE_BYTES)
    now = utc_now()
    credential = Credential(
        id=make_credential_id(),
        agent_id=caller.agent_id,
        agent_type=caller.agent_type,
        permissions=caller.permissions,
        key_id=caller.key_id,
        handle_hash=hash_handle(code),
        issued_at=now,
        expires_at=now + LINK_LIFE,
    )
    details = {"credential_id": credential.id, "key_id": credential.key_id}
    await store.credentials.add(
        credential, AuditEntry.by(caller, "sign_in_link_made", details=dict(details))
    )
    return code


async def redeem_code(
    store: Store, identity: Identity, code: str, connection: Connection
) -> IssuedToken:
    """Issue a token for who the code was made for. Raises Unauthenticated for a code that is unknown,
    used or too old."""
    error = Unauthenticated(
        "This sign-in link is not valid: it was used already, or it is older than two minutes.",
        field="code",
        suggestion="Run `scs ui` again for a new link.",
    )
    if not code.startswith(_PREFIX) or len(code) > MAX_CODE_CHARS:
        raise error
    credential = await store.credentials.find_by_handle(hash_handle(code))
    now = utc_now()
    if credential is None or credential.revoked_at is not None or credential.expires_at <= now:
        raise error
    caller = Caller(
        credential.agent_id, credential.agent_type, credential.permissions, credential.key_id
    )
    audit = AuditEntry.by(caller, "sign_in_link_used", details={"credential_id": credential.id})
    if not await store.credentials.revoke_family(credential.id, now, audit):
        raise error  # another process was faster
    return await identity.sign_in(caller, connection)
