"""The contract of storage/contract/audit.py: the hash chain over the audit log."""

from __future__ import annotations

import asyncio
from typing import Any

from shared_context_server.models import AuditEntry
from shared_context_server.services.audit_chain import AuditReport, verify_audit_log
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_copier, open_storage
from shared_context_server.storage.audit_rows import from_audit_entry
from shared_context_server.storage.contract import AuditChain, AuditQuery
from shared_context_server.storage.rules.audit_chain import hash_entry
from shared_context_server.storage.transfer.records import AUDIT
from tests.storage.builders import NOON, allow, at, make_audit, new_session

LONG_AGO = at(-1000)


async def read(store: Store, **filters: Any) -> tuple[list[AuditEntry], AuditChain]:
    """The entries, oldest first, and the ends of their chain."""
    entries, chain = await store.audit.list_with_chain(AuditQuery(**{"limit": 5000} | filters))
    assert chain is not None
    return entries[::-1], chain


async def purge(store: Store, before: float) -> int:
    return await store.maintenance.purge(
        expired_before=LONG_AGO, idempotency_before=LONG_AGO, audit_before=at(before)
    )


async def verify(settings: Settings, **options: Any) -> AuditReport:
    report = await verify_audit_log(settings, **options)
    assert report.describe() == []
    return report


async def test_each_entry_has_the_documented_hash_over_itself_and_the_hash_before(
    store: Store,
) -> None:
    odd = {"é☃\n": ["😀", 1.5, None, 1e300], "a": {"b": '"\\'}}
    for entry in (
        make_audit(session_id="s", details=odd),
        make_audit(agent_id="ä,1:b", timestamp=at(-1e9)),
        make_audit("x:y", agent_id=""),
    ):
        await store.audit.add(entry)
    entries, chain = await read(store)
    previous = ""
    for number, entry in enumerate(entries, 1):
        assert entry.id == number
        assert entry.hash == hash_entry(previous, number, from_audit_entry(entry)[1:-1])
        previous = entry.hash
    assert chain == AuditChain(0, 0, "", 3, previous)
    # Computed by hand once: the form must not change, or stored chains break.
    one = hash_entry("", 1, (0, "e", "é", None, "{}"))
    assert one == "059007ce93c20fd5b8fa5c8e83f899df0d2c23751d61ca1c29b5144f9b9373fb"


async def test_without_entries_there_is_no_chain(store: Store, any_settings: Settings) -> None:
    assert await store.audit.list_with_chain(AuditQuery(limit=9)) == ([], None)
    assert (await verify(any_settings)).entries == 0


async def test_entries_of_several_processes_are_one_chain(
    store: Store, any_settings: Settings
) -> None:
    async with open_storage(any_settings) as other:
        adding = [one.audit.add(make_audit(str(n))) for n in range(40) for one in (store, other)]
        making = [
            other.sessions.create(new_session(f"session_{n}"), make_audit()) for n in range(20)
        ]
        await asyncio.gather(*adding, *making)
        await asyncio.gather(
            *(store.sessions.close(f"session_{n}", NOON, allow, make_audit()) for n in range(20))
        )
    entries, chain = await read(store)
    first_id = chain.start_id + 1
    assert [entry.id for entry in entries] == list(range(first_id, first_id + 120))
    assert (await verify(any_settings)).entries == 120


async def test_a_write_that_fails_leaves_no_gap_in_the_chain(
    store: Store, any_settings: Settings
) -> None:
    new = new_session("session_1")
    made = [store.sessions.create(new, make_audit(str(number))) for number in range(9)]
    outcomes = await asyncio.gather(*made, return_exceptions=True)
    assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 8
    await store.audit.add(make_audit("after"))
    assert (await verify(any_settings)).entries == 2


async def test_what_purging_leaves_verifies_from_its_anchor(
    store: Store, any_settings: Settings
) -> None:
    for number in range(1100):  # more than two steps
        await store.audit.add(make_audit(timestamp=at(number)))
    noted = (await read(store))[1].head_hash
    assert await purge(store, 1050) == 1050
    entries, chain = await read(store)
    assert (chain.anchor_id, chain.head_id, len(entries)) == (1050, 1100, 50)
    assert (await verify(any_settings, wanted_hash=noted)).entries == 50
    assert (await verify(any_settings, newest=10)).entries == 10
    assert await purge(store, 5000) == 50
    assert (await verify(any_settings, wanted_hash=noted)).entries == 0
    await store.audit.add(make_audit())
    entries, chain = await read(store)
    assert [entry.id for entry in entries] == [chain.anchor_id + 1] == [1101]
    assert (await verify(any_settings, wanted_hash=noted)).entries == 1


async def test_purging_ends_at_the_first_entry_that_stays(
    store: Store, any_settings: Settings
) -> None:
    """Another host's clock may be behind: the chain must have no gap."""
    for seconds in (0, 1, 9, 2):
        await store.audit.add(make_audit(timestamp=at(seconds)))
    assert await purge(store, 5) == 2
    assert (await verify(any_settings)).entries == 2
    assert await purge(store, 10) == 2


async def test_entries_without_hashes_that_were_copied_are_older_than_the_chain(
    store: Store, any_settings: Settings
) -> None:
    rows = [(id_, 0, "copied", "alice", None, "{}", "") for id_ in (3, 7)]
    async with open_copier(any_settings, read_only=False) as copier:
        await copier.write_rows(AUDIT, rows, [])
    assert (await verify(any_settings)).before_chain == 2
    await store.audit.add(make_audit(timestamp=at(1)))
    entries, chain = await read(store)
    assert ([entry.id for entry in entries], chain.start_id) == ([3, 7, 8], 7)
    report = await verify(any_settings)
    assert (report.before_chain, report.entries) == (2, 1)
    assert await purge(store, 0) == 2
    assert (await verify(any_settings)).before_chain == 0


async def test_filters_apply_with_the_chain_too(store: Store) -> None:
    for agent_id in ("alice", "bob", "alice"):
        await store.audit.add(make_audit(agent_id=agent_id))
    entries, chain = await read(store, agent_id="bob")
    assert ([entry.id for entry in entries], chain.head_id) == ([2], 3)
