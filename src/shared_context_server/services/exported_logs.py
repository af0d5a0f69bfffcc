"""Check files of one log: of a session, as the dashboard exports it, or of the audit log."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

from shared_context_server.models import JsonObject
from shared_context_server.services.audit_chain import AUDIT_FILE, ChainCheck, to_audit_row
from shared_context_server.services.dumps import open_lines
from shared_context_server.services.line_chain import END, FileDamaged, read_chained
from shared_context_server.services.moving import BATCH_ROWS
from shared_context_server.services.signatures import SIGNATURE, SignatureWrong, check_signature
from shared_context_server.storage.codec import Row
from shared_context_server.storage.contract import AuditChain
from shared_context_server.storage.transfer.lines import RECORD

if TYPE_CHECKING:  # see services.signatures
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def check_log(file: BinaryIO, expected: Ed25519PublicKey | None) -> dict[str, Any]:
    """Return what the file is: `what`, `count`, `head` and `signed_by`. `expected`: the key that it has to
    be signed with. Raises FileDamaged and SignatureWrong, which say what is wrong and where."""
    what, count, head, signed_by = "session log", 0, "", None
    audit: _AuditEntries | None = None
    with open_lines(file) as lines:
        try:
            for number, record, head in read_chained(lines):
                name = record.get(RECORD)
                if name == SIGNATURE:
                    signed_by = check_signature(record, head, expected)
                elif name == END:
                    continue
                elif number == 1 and name == AUDIT_FILE:
                    what, audit = "audit log", _AuditEntries(record)
                else:
                    count += 1
                    if audit is not None:
                        audit.add(record, number)
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise FileDamaged(f"The compressed file is cut off or altered ({exc}).") from exc
    if audit is not None:
        audit.finish()
    if signed_by is None and expected is not None:
        raise SignatureWrong("The file is not signed.")
    return {"what": what, "count": count, "head": head, "signed_by": signed_by}


class _AuditEntries:
    """Checks the chain of the audit log in a file. It has gaps if entries were filtered."""

    def __init__(self, header: JsonObject) -> None:
        self._rows: list[Row] = []
        self._before: Row | None = None
        self._check: ChainCheck | None = None
        if not header.get("filters"):
            ends = header.get("chain_ends")
            try:
                chain = AuditChain(**ends) if isinstance(ends, dict) else None  # type: ignore[arg-type]
            except TypeError as exc:
                raise FileDamaged("Line 1 is no header of an exported audit log.") from exc
            self._check = ChainCheck(chain)

    def add(self, entry: JsonObject, number: int) -> None:
        try:
            self._rows.append(to_audit_row(entry))
        except (KeyError, ValueError, TypeError) as exc:
            raise FileDamaged(f"Line {number} is no entry of the audit log.") from exc
        if len(self._rows) == BATCH_ROWS:
            self._check_rows()

    def finish(self) -> None:
        """Raise FileDamaged if the chain of the log was broken already when it was exported."""
        self._check_rows()
        report = None if self._check is None else self._check.finish()
        if report is not None and not report.is_whole:
            problems = " ".join(report.describe())
            raise FileDamaged(
                f"The file is as it was written, but the audit log was not whole. {problems}"
            )

    def _check_rows(self) -> None:
        if self._check is not None and self._rows:
            self._check.check(self._rows, self._before)
            self._before = self._rows[-1]
        self._rows = []
