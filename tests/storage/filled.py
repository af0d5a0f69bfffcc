"""A store with something of everything that is moved."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from shared_context_server.models import (
    Access,
    Agent,
    ApiKey,
    Credential,
    Permission,
    Visibility,
)
from shared_context_server.storage import Storage
from tests.storage.builders import (
    ALICE,
    BOB,
    CAROL,
    NOON,
    add_message,
    add_session,
    address,
    allow,
    at,
    make_audit,
    put,
)

KEY = ApiKey(
    id="key_1",
    agent_id="alice",
    permissions=frozenset({Permission.WRITE, Permission.READ}),
    secret_hash="5ec2e7",
    created_at=NOON,
)
CREDENTIAL = Credential(
    id="jti_1",
    agent_id="alice",
    agent_type="claude",
    permissions=frozenset({Permission.READ}),
    key_id="key_1",
    handle_hash="hash of jti_1",
    issued_at=NOON,
    expires_at=at(1e9),
)


async def fill(storage: Storage) -> None:
    """Add two sessions that stay, and leave traces of one that does not."""
    await add_session(storage, "open", purpose="Ünïcode ☃", metadata={"z": 1, "a": [None, 1.5]})
    await add_session(storage, "invited", access=Access.INVITED, invited=("bob", "carol"))
    await _add_messages(storage)
    await storage.set_cursor("open", BOB, 2, allow)
    await storage.close_session("invited", at(9), allow, make_audit("closed"))
    await _add_memory(storage)
    await _use_leases(storage)
    await storage.touch_agents(
        [Agent("alice", "claude", NOON, at(1)), Agent("bob", "x", NOON, NOON)]
    )
    await storage.touch_agents([], gone_before=at(0.5))
    await storage.add_key(KEY, make_audit("key"))
    await storage.add_key(replace(KEY, id="key_0"), make_audit("key"))
    await storage.revoke_key("key_0", at(2), make_audit("revoked"))
    await storage.add_credential(CREDENTIAL, make_audit("credential"))
    await add_session(storage, "gone")
    await add_message(storage, "gone")
    await storage.delete_session("gone", allow, make_audit("deleted", session_id="gone"))


async def _add_messages(storage: Storage) -> None:
    first = await add_message(
        storage, "open", content="hello\n☃ \"'\\", idempotency_key="once", fingerprint="f"
    )
    for visibility in Visibility:
        await add_message(
            storage,
            "open",
            sender=CAROL,
            visibility=visibility,
            recipients=("bob",),
            metadata={"deep": {"list": [1, 2.0, "x", None, True]}},
            parent_message_id=first.id,
            created_at=at(1),
        )
    await add_message(storage, "invited")


async def _add_memory(storage: Storage) -> None:
    for key in ("B", "a", "é", "😀", "\uffff", "Z"):
        for session_id, owner in ((None, "alice"), ("open", None), (None, None)):
            await storage.write_memory(
                address(key, session_id=session_id, owner=owner),
                ALICE,
                put({"key": key}, expires_at=at(1e9) if key == "a" else None, by="test"),
                now=NOON,
                guard=allow if session_id else None,
                idempotency_key=f"{key} in {session_id}" if owner else None,
                fingerprint="g",
            )
    await storage.write_memory(address("B", owner="alice"), ALICE, put(2), now=at(1), guard=None)


async def _use_leases(storage: Storage) -> None:
    for name in ("deploy", "free"):
        for _ in range(3):
            held = await storage.acquire_lease(
                None, name, ALICE, ttl=timedelta(hours=1), now=NOON, guard=None
            )
            token = held.lease.fencing_token
            await storage.release_lease(None, name, ALICE, token, now=NOON, guard=None)
    await storage.acquire_lease(
        None, "deploy", ALICE, ttl=timedelta(days=10_000), now=NOON, guard=None
    )
