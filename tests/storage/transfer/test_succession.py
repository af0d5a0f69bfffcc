"""Which state of a row may follow which."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from shared_context_server.storage import postgres, sqlite
from shared_context_server.storage.transfer.records import KINDS, KINDS_BY_NAME
from shared_context_server.storage.transfer.succession import follows

BEFORE: dict[str, dict[str, Any]] = {
    "session": {
        "status": "active",
        "closed_at": None,
        "purpose": "p",
        "first_seq": 1,
        "expired_up_to": 0,
    },
    "message": {"content": "x"},
    "cursor": {"seq": 4},
    "memory": {"version": 4, "updated_at": 100, "value": "1"},
    "lease": {"holder": "a", "fencing_token": 4, "acquired_at": 1, "expires_at": 100},
    "task": {"version": 4, "state": "ready", "title": "t"},
    "agent": {"first_seen": 1, "last_seen": 100, "is_around": True},
    "api_key": {"revoked_at": None, "secret_hash": "x"},
    "credential": {"revoked_at": None, "handle_hash": "x"},
    "audit": {"event_type": "x", "hash": ""},
    "audit_chain": {"start_id": 0, "anchor_id": 4, "head_id": 9},
    "counter": {"last_id": 4},
}


def can_follow(name: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    kind = KINDS_BY_NAME[name]
    rows = [
        tuple((BEFORE[name] | changed).get(column) for column in kind.columns)
        for changed in (before, before | after)
    ]
    return follows(kind, *rows)


@pytest.mark.parametrize(
    "name, after",
    [
        ("session", {"status": "closed", "closed_at": 5}),
        ("session", {"first_seq": 5, "expired_up_to": 9, "removed_id": 7, "removed_at": 5}),
        ("cursor", {"seq": 5}),
        ("memory", {"version": 5, "updated_at": 101, "value": "2"}),
        ("memory", {"version": 1, "updated_at": 101}),
        ("lease", {"holder": "b", "fencing_token": 5, "expires_at": 9}),
        ("lease", {"expires_at": 101}),
        ("lease", {"holder": None}),
        ("task", {"version": 5, "state": "claimed", "claimed_by": "b"}),
        ("agent", {"last_seen": 101, "is_around": False}),
        ("agent", {"is_around": False}),
        ("api_key", {"revoked_at": 5}),
        ("credential", {"revoked_at": 5}),
        ("audit", {"hash": "x"}),  # of an older version, chained later
        ("audit_chain", {"head_id": 10}),
        ("audit_chain", {"anchor_id": 5}),
        ("counter", {"last_id": 5}),
    ],
)
def test_what_went_on_follows_and_never_the_other_way(name: str, after: dict[str, Any]) -> None:
    assert can_follow(name, {}, after)
    # Who has gone is seen as having come back: both happen at one and the same last_seen.
    if (name, after) != ("agent", {"is_around": False}):
        assert not can_follow(name, after, BEFORE[name])


@pytest.mark.parametrize(
    "name, after",
    [
        ("session", {"purpose": "q"}),
        ("session", {"status": "closed", "closed_at": 5, "purpose": "q"}),
        ("message", {"content": "y"}),
        ("memory", {"value": "2"}),
        ("lease", {"holder": "b"}),
        ("task", {"version": 5, "title": "u"}),
        ("agent", {"first_seen": 2, "last_seen": 101}),
        ("api_key", {"revoked_at": 5, "secret_hash": "y"}),
        ("audit", {"event_type": "y"}),
        ("audit_chain", {"start_id": 1, "head_id": 10}),
    ],
)
def test_another_one_does_not_follow(name: str, after: dict[str, Any]) -> None:
    assert not can_follow(name, {}, after)


_SET = re.compile(
    r"(?:UPDATE (\w+)|INSERT INTO (\w+) [^;]*?DO UPDATE) SET (.*?)(?: WHERE |RETURNING|$)"
)
_ASSIGNED = re.compile(r"(?:^|, )(\w+) = ")


def find_assignments(package: ModuleType) -> Iterator[tuple[str, str]]:
    """Tables and columns that the statements of a store change."""
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for value in vars(module).values():
            statement = getattr(value, "sql", value)
            if isinstance(statement, str):
                for match in _SET.finditer(" ".join(statement.split())):
                    for column in _ASSIGNED.findall(match[3]):
                        yield match[1] or match[2], column


@pytest.mark.parametrize("package", [sqlite, postgres], ids=lambda package: package.__name__)
def test_a_copy_accepts_a_change_of_each_column_that_a_store_changes(package: ModuleType) -> None:
    """Whoever writes a method that changes one more is told to name it in transfer/records.py."""
    kinds = {kind.table: kind for kind in KINDS}
    changed = {(table, column) for table, column in find_assignments(package) if table in kinds}
    assert {table for table, _ in changed} > {"sessions", "leases", "memory", "api_keys"}
    immutable = {(t, column) for t, column in changed if column not in kinds[t].mutable}
    assert immutable == set()
