"""A store with something of everything that is moved."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from shared_context_server.models import (
    Access,
    Ack,
    Agent,
    ApiKey,
    Credential,
    Permission,
    TaskOutcome,
    Visibility,
)
from shared_context_server.storage import Store
from shared_context_server.storage.contract import Claim, Finish, NewTask
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
    is_pattern=True,
    expires_at=at(1e9),
    last_used_at=at(2),
    label="of the build",
    replaced_by="key_2",
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


async def fill(store: Store) -> None:
    """Add three sessions that stay, and leave traces of one that does not."""
    await add_session(store, "open", purpose="Ünïcode ☃", metadata={"z": 1, "a": [None, 1.5]})
    await add_session(store, "invited", access=Access.INVITED, invited=("bob", "carol"))
    await _add_messages(store)
    await add_session(store, "worked", invited=("bob",))
    await _add_tasks(store)
    await store.sessions.set_cursor("open", BOB, 2, allow)
    await store.sessions.close("invited", at(9), allow, make_audit("closed"))
    await _add_memory(store)
    await _use_leases(store)
    await store.agents.touch([Agent("alice", "claude", NOON, at(1)), Agent("bob", "x", NOON, NOON)])
    await store.agents.touch([], gone_before=at(0.5))
    await store.credentials.add_key(KEY, make_audit("key"))
    await store.credentials.add_key(replace(KEY, id="key_0"), make_audit("key"))
    await store.credentials.revoke_key("key_0", at(2), make_audit("revoked"))
    await store.credentials.add(CREDENTIAL, make_audit("credential"))
    await add_session(store, "gone")
    await add_message(store, "gone")
    await store.sessions.delete("gone", allow, make_audit("deleted", session_id="gone"))


async def _add_messages(store: Store) -> None:
    first = await add_message(
        store, "open", content="hello\n☃ \"'\\", idempotency_key="once", fingerprint="f"
    )
    for visibility in Visibility:
        await add_message(
            store,
            "open",
            sender=CAROL,
            visibility=visibility,
            recipients=("bob",),
            metadata={"deep": {"list": [1, 2.0, "x", None, True]}},
            parent_message_id=first.id,
            created_at=at(1),
        )
    asking = await add_message(store, "invited", ack=Ack.REQUIRED)
    given = {"ack": Ack.GIVEN, "parent_message_id": asking.id, "visibility": Visibility.PRIVATE}
    await add_message(store, "invited", sender=BOB, recipients=("alice",), **given)


async def _add_memory(store: Store) -> None:
    for key in ("B", "a", "é", "😀", "\uffff", "Z"):
        for session_id, owner in ((None, "alice"), ("open", None), (None, None)):
            await store.memory.write(
                address(key, session_id=session_id, owner=owner),
                ALICE,
                put({"key": key}, expires_at=at(1e9) if key == "a" else None, by="test"),
                now=NOON,
                guard=allow if session_id else None,
                idempotency_key=f"{key} in {session_id}" if owner else None,
                fingerprint="g",
            )
    await store.memory.write(address("B", owner="alice"), ALICE, put(2), now=at(1), guard=None)


async def _use_leases(store: Store) -> None:
    for name in ("deploy", "free"):
        for _ in range(3):
            held = await store.leases.acquire(
                None, name, ALICE, ttl=timedelta(hours=1), now=NOON, guard=None
            )
            token = held.lease.fencing_token
            await store.leases.release(None, name, ALICE, token, now=NOON, guard=None)
    await store.leases.acquire(
        None, "deploy", ALICE, ttl=timedelta(days=10_000), now=NOON, guard=None, paths=("a/**", "é")
    )


async def _add_tasks(store: Store) -> None:
    """One that is done, one that is claimed in a thread, and one that waits."""
    for title, depends_on in (("Tëst ☃", ()), ("Claimed", ()), ("Blocked", (1, 2))):
        new = NewTask("worked", ALICE, title, "b\ndy", 1, "bob", depends_on, {"a": [1.5]}, at(1))
        await store.tasks.add(new, allow)
    worker = replace(BOB, instance="a thread")
    for _ in range(2):
        claim = Claim("worked", None, worker, timedelta(days=10_000), at(2))
        await store.tasks.claim(claim, allow)
    done = Finish("worked", 1, worker, 1, TaskOutcome.DONE, {"deep": [None, "x"]}, at(3))
    await store.tasks.finish(done, allow)
