"""Verify the hash chain of the audit log; storage/rules/audit_chain.py defines it.

What can be found: entries that were changed, removed, inserted or moved by something that did not also
compute all later hashes anew. Whoever can write to the database can do that. Then only a hash of the
head that was kept elsewhere shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shared_context_server.errors import ConfigurationError
from shared_context_server.models import JsonObject
from shared_context_server.services.moving import BATCH_ROWS
from shared_context_server.settings import Settings
from shared_context_server.storage import open_copier
from shared_context_server.storage.codec import Row, encode_json, parse_time
from shared_context_server.storage.contract import AuditChain
from shared_context_server.storage.rules.audit_chain import hash_entry
from shared_context_server.storage.transfer.copying import RowReader
from shared_context_server.storage.transfer.records import AUDIT, AUDIT_CHAIN

AUDIT_FILE = "audit_log"
"""What the first line of an exported audit log says it is."""

MAX_FAULTS = 20  # told of; all are counted
_MAX_EXPLAINED = (
    200  # wrong entries whose place is looked for, since that takes some milliseconds each
)
_NEIGHBOURS = 40  # entries before and behind a wrong one, among which its place is looked for


class ChainFault(NamedTuple):
    """Something that is wrong with the entries from `first_id` to `last_id`. `what` follows their name."""

    first_id: int
    last_id: int
    what: str

    @property
    def text(self) -> str:
        if self.first_id == self.last_id:
            return f"Entry {self.first_id}: {self.what}."
        return f"Entries {self.first_id} to {self.last_id}: {self.what}."


@dataclass(slots=True)
class AuditReport:
    """The result of verifying.

    `entries`: in the chain and read. `before_chain`: older than the chain, which nothing protects.
    `not_yet_chained`: at the end without a hash, from `first_unchained` on: a process of an older version has
    added them, or somebody who can write to the database; the next entry chains them. `wrong`: the number of
    entries that are wrong or missing, of which `faults` tells the first. `is_head_missing`: no entry has
    the hash that was asked for.
    """

    chain: AuditChain | None = None
    entries: int = 0
    before_chain: int = 0
    not_yet_chained: int = 0
    first_unchained: int | None = None
    wrong: int = 0
    faults: list[ChainFault] = field(default_factory=list)
    is_head_missing: bool = False

    @property
    def is_whole(self) -> bool:
        return self.wrong == 0 and not self.is_head_missing

    @property
    def is_certain(self) -> bool:
        """Whether it is whole and covers all entries up to the newest."""
        return self.is_whole and self.not_yet_chained == 0

    def add(self, first_id: int, last_id: int, what: str) -> None:
        """Note a fault; one that continues the last one is told together with it."""
        self.wrong += last_id - first_id + 1
        last = self.faults[-1] if self.faults else None
        if last is not None and last.what == what and last.last_id == first_id - 1:
            self.faults[-1] = last._replace(last_id=last_id)
        elif len(self.faults) < MAX_FAULTS:
            self.faults.append(ChainFault(first_id, last_id, what))

    def describe(self) -> list[str]:
        """Return what is wrong as sentences."""
        told = [fault.text for fault in sorted(self.faults)]
        if self.is_head_missing:
            told.append(
                "No entry has the hash of --head: the log was written anew, its end was removed, or the "
                "entry was purged since then."
            )
        if self.not_yet_chained:
            told.append(
                f"{self.not_yet_chained} entries at the end have no hash, from entry "
                f"{self.first_unchained} on: a server of an older version wrote them, or somebody who can "
                "write to the database. The next entry chains them; look at them before."
            )
        return told


class ChainCheck:
    """Checks an audit log in batches, from its beginning or from its end.

    Rows are those of the record kind AUDIT, by id. `wanted_hash`: a hash that the chain must contain.
    """

    def __init__(self, chain: AuditChain | None, wanted_hash: str | None = None) -> None:
        self.chain = chain
        self.report = AuditReport(chain)
        self._wanted_hash = wanted_hash
        self._is_found = chain is not None and wanted_hash in (chain.anchor_hash, chain.head_hash)
        self._newest: Row | None = None

    def check(self, rows: Sequence[Row], before: Row | None) -> None:
        """Check one batch. `before`: the row before the first one; None: the batch begins the log."""
        chain = self.chain
        if chain is None:
            for row in rows:
                self._check_unchained(row, "has a hash, but the store does not know of a chain")
            return
        previous_id, previous_hash = chain.anchor_id, chain.anchor_hash
        if before is not None and before[0] > chain.anchor_id:
            previous_id, previous_hash = before[0], before[-1]
        for place, row in enumerate(rows):
            if self._is_outside(row, chain):
                continue
            self._check_link(rows, place, previous_id, previous_hash)
            previous_id, previous_hash = row[0], row[-1]
            if self._newest is None or row[0] > self._newest[0]:
                self._newest = row
            self._is_found |= row[-1] == self._wanted_hash
            self.report.entries += 1

    def finish(self) -> AuditReport:
        """Check the end of the chain, and return the result."""
        chain, report = self.chain, self.report
        if chain is not None:
            last_id = chain.anchor_id if self._newest is None else self._newest[0]
            last_hash = chain.anchor_hash if self._newest is None else self._newest[-1]
            if last_id < chain.head_id:
                report.add(last_id + 1, chain.head_id, "removed at the end of the log")
            elif last_hash != chain.head_hash:
                report.add(last_id, last_id, "the newest, but its hash is not the noted one")
        report.is_head_missing = self._wanted_hash is not None and not self._is_found
        return report

    def _is_outside(self, row: Row, chain: AuditChain) -> bool:
        """Whether the row is no link of the chain. Notes what is wrong with it then."""
        id_, hash_ = row[0], row[-1]
        if id_ <= chain.start_id:
            self._check_unchained(row, "has a hash, but the chain begins behind it")
        elif id_ <= chain.anchor_id:
            self.report.add(id_, id_, f"inserted, since all up to {chain.anchor_id} were purged")
        elif id_ <= chain.head_id:
            return False
        elif hash_:
            self.report.add(id_, id_, f"inserted, since the chain ends with {chain.head_id}")
        else:
            self.report.not_yet_chained += 1
            first = self.report.first_unchained
            self.report.first_unchained = id_ if first is None else min(first, id_)
        return True

    def _check_unchained(self, row: Row, what: str) -> None:
        if row[-1]:
            self.report.add(row[0], row[0], what)
        else:
            self.report.before_chain += 1

    def _check_link(
        self, rows: Sequence[Row], place: int, previous_id: int, previous_hash: str
    ) -> None:
        row = rows[place]
        id_ = row[0]
        if id_ != previous_id + 1:
            # Without the entry before, the hash of this one tells nothing.
            self.report.add(previous_id + 1, id_ - 1, "removed")
        elif hash_entry(previous_hash, id_, row[1:-1]) != row[-1]:
            is_explained = self.report.wrong < _MAX_EXPLAINED
            self.report.add(
                id_, id_, _explain(rows, place, previous_id) if is_explained else "wrong"
            )


def _explain(rows: Sequence[Row], place: int, previous_id: int) -> str:
    """Say why the hash of an entry does not match: look for the place that it was written at."""
    row = rows[place]
    near = rows[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]
    for before in near:
        if hash_entry(before[-1], row[0], row[1:-1]) == row[-1] and before[0] < previous_id:
            return f"written behind {before[0]}: what is between was inserted or moved"
    for before in near:
        for other in near:
            if hash_entry(before[-1], other[0], row[1:-1]) == row[-1]:
                return f"moved: the id was changed by {row[0] - other[0]:+}"
    if not row[-1]:
        return "inserted, or the hash was removed"
    return "changed or inserted, or the hash of the entry before was changed"


async def verify_audit_log(
    settings: Settings, *, newest: int | None = None, wanted_hash: str | None = None
) -> AuditReport:
    """Verify the audit log of a store in one snapshot, while servers may write to it. `newest`: only so
    many entries at the end. Raises ConfigurationError if the store cannot be read."""
    async with open_copier(settings, read_only=True) as copier, copier.open_snapshot() as snapshot:
        return await verify_rows(snapshot, newest=newest, wanted_hash=wanted_hash)


async def verify_rows(
    reader: RowReader, *, newest: int | None = None, wanted_hash: str | None = None
) -> AuditReport:
    """As verify_audit_log, on a snapshot."""
    found = await reader.read_rows(AUDIT_CHAIN, limit=1)
    chain = AuditChain(*found[0][1:]) if found else None
    check = ChainCheck(chain, wanted_hash)
    before: Row | None = None
    after = None
    if chain is not None and newest is not None and chain.head_id - newest > chain.anchor_id:
        after = (chain.head_id - newest - 1,)
    while rows := await reader.read_rows(AUDIT, after=after, limit=BATCH_ROWS):
        if before is None and after is not None:
            before, rows = rows[0], rows[1:]  # where the part that is verified begins
        check.check(rows, before)
        before = rows[-1] if rows else before
        after = AUDIT.key_of(before) if before is not None else None
    return check.finish()


def to_audit_row(entry: JsonObject) -> Row:
    """Return the row of an entry as the tool get_audit_log tells it. Raises KeyError, ValueError and
    TypeError for something else."""
    return (
        entry["id"],
        parse_time(str(entry["timestamp"])),
        entry["event_type"],
        entry["agent_id"],
        entry["session_id"],
        encode_json(entry["details"]),
        entry.get("hash", ""),
    )


def read_wanted_hash(text: str | None) -> str | None:
    """Return a hash as it is stored. Raises ConfigurationError for a text that is none."""
    if text is None:
        return None
    hash_ = text.strip().lower()
    if len(hash_) != 64 or set(hash_) - set("0123456789abcdef"):
        raise ConfigurationError("--head: a hash has 64 hexadecimal digits.")
    return hash_
