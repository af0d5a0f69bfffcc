"""Verifying the audit log finds what was done to it, and says which entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared_context_server.services.audit_chain import MAX_FAULTS, AuditReport, ChainCheck
from shared_context_server.storage.codec import Row
from shared_context_server.storage.contract import AuditChain
from shared_context_server.storage.rules.audit_chain import hash_entry

ENTRIES = 30
Rows = list[Row]


def make_log(first_id: int = 1, anchor_hash: str = "") -> tuple[Rows, AuditChain]:
    """Entries as a store writes them, and the ends of their chain."""
    rows: Rows = []
    head = anchor_hash
    for id_ in range(first_id, first_id + ENTRIES):
        content = (id_, "tested", "alice", None, f'{{"n":{id_}}}')
        head = hash_entry(head, id_, content)
        rows.append((id_, *content, head))
    return rows, AuditChain(0, first_id - 1, anchor_hash, rows[-1][0], head)


def verify(
    rows: Rows, chain: AuditChain | None, *, batch: int = 1000, wanted_hash: str | None = None
) -> AuditReport:
    """Check as a store is read, and as pages of the tool are, newest first: the results are equal."""
    reports = []
    starts = range(0, len(rows), batch)
    for order in (starts, reversed(starts)):
        check = ChainCheck(chain, wanted_hash)
        for start in order:
            check.check(rows[start : start + batch], rows[start - 1] if start else None)
        reports.append(check.finish())
    assert reports[0].describe() == reports[1].describe()
    assert reports[0].wrong == reports[1].wrong
    return reports[0]


def change(rows: Rows) -> None:
    rows[6] = (*rows[6][:3], "eve", *rows[6][4:])


def change_with_its_hash(rows: Rows) -> None:
    change(rows)
    rows[6] = (*rows[6][:-1], hash_entry(rows[5][-1], 7, rows[6][1:-1]))


def change_time(rows: Rows) -> None:
    rows[0] = (rows[0][0], 99, *rows[0][2:])


def remove_some(rows: Rows) -> None:
    del rows[11:13]


def remove_the_first(rows: Rows) -> None:
    del rows[:2]


def remove_the_last(rows: Rows) -> None:
    del rows[-2:]


def swap(rows: Rows) -> None:
    rows[4], rows[5] = (5, *rows[5][1:]), (6, *rows[4][1:])


def insert(rows: Rows) -> None:
    rows[9:] = [(10, *rows[3][1:]), *((row[0] + 1, *row[1:]) for row in rows[9:-1])]


def add_behind(rows: Rows) -> None:
    rows.append((31, *rows[3][1:]))


def take_a_hash_away(rows: Rows) -> None:
    rows[6] = (*rows[6][:-1], "")


CHANGED = "changed or inserted, or the hash of the entry before was changed."


@pytest.mark.parametrize(
    "alter, said",
    [
        (change, [f"Entry 7: {CHANGED}"]),
        (change_time, [f"Entry 1: {CHANGED}"]),
        (change_with_its_hash, [f"Entry 8: {CHANGED}"]),
        (remove_some, ["Entries 12 to 13: removed."]),
        (remove_the_first, ["Entries 1 to 2: removed."]),
        (remove_the_last, ["Entries 29 to 30: removed at the end of the log."]),
        (
            swap,
            [
                "Entry 5: moved: the id was changed by -1.",
                "Entry 6: moved: the id was changed by +1.",
                "Entry 7: written behind 5: what is between was inserted or moved.",
            ],
        ),
        (
            insert,
            [
                "Entry 10: moved: the id was changed by +6.",
                "Entries 11 to 30: moved: the id was changed by +1.",
                "Entry 30: the newest, but its hash is not the noted one.",
            ],
        ),
        (add_behind, ["Entry 31: inserted, since the chain ends with 30."]),
        (take_a_hash_away, ["Entry 7: inserted, or the hash was removed.", f"Entry 8: {CHANGED}"]),
    ],
    ids=lambda found: getattr(found, "__name__", ""),
)
def test_what_was_altered_is_found_and_named(
    alter: Callable[[Rows], None], said: list[str]
) -> None:
    rows, chain = make_log()
    assert verify(rows, chain).is_whole
    alter(rows)
    report = verify(rows, chain)
    assert report.describe() == said
    assert not report.is_whole
    assert verify(rows, chain, batch=15).describe()[0] == said[0]


def test_a_log_written_anew_is_found_only_by_a_hash_kept_elsewhere() -> None:
    rows, chain = make_log()
    noted = rows[20][-1]
    assert verify(rows, chain, wanted_hash=noted).is_whole
    assert verify(rows, chain, wanted_hash=chain.head_hash).is_whole
    forged: Rows = []
    head = ""
    for id_, *content, _ in rows:
        altered = (content[0], content[1], "eve", *content[3:])
        head = hash_entry(head, id_, altered)
        forged.append((id_, *altered, head))
    ends = chain._replace(head_hash=head)
    assert verify(forged, ends).is_whole
    report = verify(forged, ends, wanted_hash=noted)
    assert (report.is_whole, report.wrong) == (False, 0)
    assert report.describe()[0].startswith("No entry has the hash of --head")


def test_the_anchor_stands_for_what_was_purged() -> None:
    rows, chain = make_log(41, "a" * 64)
    assert verify(rows, chain, wanted_hash="a" * 64).is_whole
    inserted = (40, *rows[0][1:])
    assert verify([inserted, *rows], chain).describe() == [
        "Entry 40: inserted, since all up to 40 were purged."
    ]
    assert verify(rows, chain._replace(anchor_hash="b" * 64)).wrong == 1


def test_entries_from_before_the_chain_are_counted_and_not_trusted() -> None:
    rows, chain = make_log(4)
    before = [(id_, 0, "older", "alice", None, "{}", "") for id_ in (1, 2, 3)]
    report = verify([*before, *rows], chain._replace(start_id=3))
    assert (report.is_whole, report.before_chain, report.entries) == (True, 3, ENTRIES)
    hashed = [*before[:2], (*before[2][:-1], "x")]
    assert verify([*hashed, *rows], chain._replace(start_id=3)).wrong == 1


def test_a_store_whose_chain_is_gone_is_said_so_once() -> None:
    rows, _ = make_log()
    report = verify(rows, None)
    assert (report.wrong, len(report.describe())) == (ENTRIES, 1)
    assert "Entries 1 to 30: has a hash" in report.describe()[0]


def test_many_faults_are_counted_and_the_first_are_told() -> None:
    rows, chain = make_log()
    changed = [
        (row[0], *row[1:3], f"eve {row[0]}", *row[4:]) if row[0] % 2 else row for row in rows
    ]
    gaps: list[Any] = [row for row in changed if row[0] % 2 == 0]
    report = verify(gaps, chain)
    assert report.wrong == ENTRIES // 2
    assert len(report.faults) == min(MAX_FAULTS, ENTRIES // 2)
