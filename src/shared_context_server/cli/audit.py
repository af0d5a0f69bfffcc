"""The command `audit`: lists, exports and verifies the audit log."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, BinaryIO

from cyclopts import App, Parameter
from pydantic_core import to_json

from shared_context_server import __version__
from shared_context_server.cli.exported_files import SignOption, open_output
from shared_context_server.cli.hub.calls import Answer, Hub, call, list_pages
from shared_context_server.cli.hub.options import AsJson, HubOptions, Limit
from shared_context_server.cli.show.tables import Column, print_table, tell_more
from shared_context_server.cli.show.values import (
    note,
    print_json,
    show_agent,
    show_cell,
    show_moment,
    without_success,
)
from shared_context_server.cli.texts import read_time
from shared_context_server.remote import exits
from shared_context_server.services.audit_chain import (
    AUDIT_FILE,
    AuditReport,
    ChainCheck,
    read_wanted_hash,
    to_audit_row,
)
from shared_context_server.services.line_chain import LineChain
from shared_context_server.services.signatures import make_signature, read_private_key
from shared_context_server.storage.codec import Row
from shared_context_server.storage.contract import AuditChain

app = App(name="audit", help="List, export and verify the audit log.")

PAGE = 1000


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AuditFilters:
    """Which entries."""

    agent: Annotated[str | None, Parameter(help="Only entries of this agent.")] = None
    event: Annotated[str | None, Parameter(help="Only of this type, such as key_created.")] = None
    session: Annotated[str | None, Parameter(help="Only of this session.")] = None
    since: Annotated[str | None, Parameter(help="Only later ones: RFC 3339.")] = None

    def arguments(self) -> dict[str, str]:
        """The filters that are set, as arguments of the tool."""
        given = {
            "agent_id": self.agent,
            "event_type": self.event,
            "session_id": self.session,
            "after": None if self.since is None else read_time(self.since, "--since").isoformat(),
        }
        return {name: value for name, value in given.items() if value is not None}


_COLUMNS = (
    Column("id", lambda one: str(one["id"]), is_right=True),
    Column("time", lambda one: show_moment(one["timestamp"])),
    Column("event", lambda one: show_cell(one["event_type"])),
    Column("agent", lambda one: show_agent(one["agent_id"]) if one["agent_id"] else "-"),
    Column("session", lambda one: show_cell(one["session_id"])),
    Column("details", lambda one: show_cell(one["details"] or None), is_wide=True),
)


@app.command(name="list")
def list_(
    filters: AuditFilters = AuditFilters(),
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List the entries, the newest first. Needs an admin's key, as all of audit does."""
    with hub_options.open_hub() as hub:
        answer = list_pages(hub, "get_audit_log", "entries", limit, **filters.arguments())
    if as_json:
        print_json(without_success(answer))
        return
    print_table(_COLUMNS, answer["entries"], nothing="There are no such entries.")
    tell_more(answer)


@app.command
def export(
    file: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="The file to write; - is stdout.")
    ],
    filters: AuditFilters = AuditFilters(),
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    force: Annotated[bool, Parameter(negative="", help="Replace the file if it exists.")] = False,
    sign: SignOption = None,
) -> None:
    """Write the entries to a file as lines of JSON, the oldest first, and print the newest hash.

    `scs verify FILE` checks the file, and with all entries in it their chain too.
    """
    key = None if sign is None else read_private_key(sign)
    given = filters.arguments()
    with hub_options.open_hub() as hub, tempfile.TemporaryFile() as spool:
        pages = _Pages(spool)
        ends: dict[str, Any] | None = None
        for answer in _read_pages(hub, given):
            # The head of the first page, which has the newest entry; the anchor of the last one.
            page_ends = answer.get("chain")
            ends = page_ends if ends is None or page_ends is None else {**page_ends, **_head(ends)}
            pages.add(answer["entries"])
        chain = LineChain()
        head = {
            "record": AUDIT_FILE,
            "created_at": f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z",
            "program": f"shared-context-server {__version__}",
            "filters": given,
            "chain_ends": ends,
        }
        with open_output(file, force=force) as out:
            out.write(chain.write(to_json(head)))
            for line in pages.read_backwards():
                out.write(chain.write(line))
            out.write(chain.write_end())
            if key is not None:
                out.write(to_json(make_signature(key, chain.head)) + b"\n")
    note(f"Exported {chain.lines - 2} entries from {hub.place}.")
    if ends is not None:
        note(f"Newest hash, of entry {ends['head_id']}: {ends['head_hash']}")


@app.command
def verify(
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    head: Annotated[
        str | None,
        Parameter(help="A hash that verify or export printed before: the log has to contain it."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Verify the hash chain of the audit log, and print the newest hash. Exit code 1 if it is broken, or does
    not reach the newest entry.

    Keep the printed hash where nobody who can write to the database can change it, and give it to
    --head next time: then a log that was written anew is found too.
    """
    wanted = read_wanted_hash(head)
    with hub_options.open_hub() as hub:
        report = _verify(hub, wanted)
    if as_json:
        print_json(describe_report(report))
    else:
        print_report(report)
    return exits.DONE if report.is_certain else exits.FAILED


def describe_report(report: AuditReport) -> dict[str, Any]:
    """The result of verifying as JSON."""
    return {
        "ok": report.is_certain,
        "entries": report.entries,
        "before_chain": report.before_chain,
        "not_yet_chained": report.not_yet_chained,
        "wrong": report.wrong,
        "faults": [fault._asdict() for fault in sorted(report.faults)],
        "problems": report.describe(),
        "chain": None if report.chain is None else report.chain._asdict(),
    }


def print_report(report: AuditReport) -> None:
    """Print the newest hash to stdout, and the rest to stderr."""
    for problem in report.describe():
        note(problem)
    if report.before_chain:
        note(f"{report.before_chain} entries are older than the chain, which does not cover them.")
    if report.is_certain:
        note(f"The audit log is whole: {report.entries} entries are chained.")
    elif report.wrong:
        note(f"The audit log is not whole: {report.wrong} entries are wrong or missing.")
    if report.chain is not None:
        print(report.chain.head_hash)


def _verify(hub: Hub, wanted_hash: str | None) -> AuditReport:
    """Check page by page, from the newest entry to the oldest."""
    pages = _read_pages(hub, {})
    page = next(pages)
    chain = _read_ends(page)
    check = ChainCheck(chain, wanted_hash)
    while (following := next(pages, None)) is not None:
        rows, older_rows = _read_rows(page), _read_rows(following)
        now = _read_ends(following)
        if check.chain is not None and now is not None and now.anchor_id > check.chain.anchor_id:
            # Purged since the page before was read: what it had up to there is gone.
            rows = [row for row in rows if row[0] > now.anchor_id]
            check.chain = check.chain._replace(anchor_id=now.anchor_id, anchor_hash=now.anchor_hash)
        check.check(rows, older_rows[-1] if older_rows else None)
        page = following
    check.check(_read_rows(page), None)
    return check.finish()


def _read_pages(hub: Hub, filters: dict[str, str]) -> Iterator[Answer]:
    """All pages, newest first; at least one."""
    cursor = None
    while True:
        page = call(hub, "get_audit_log", **filters, hashes=True, limit=PAGE, cursor=cursor)
        yield page
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _read_rows(page: Answer) -> list[Row]:
    """The entries of a page as rows, by id."""
    return [to_audit_row(entry) for entry in reversed(page["entries"])]


def _read_ends(page: Answer) -> AuditChain | None:
    ends = page.get("chain")
    return None if ends is None else AuditChain(**ends)


def _head(ends: dict[str, Any]) -> dict[str, Any]:
    return {name: ends[name] for name in ("head_id", "head_hash")}


class _Pages:
    """Pages of entries, newest first, in a file, to be read from the oldest entry on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._starts: list[int] = []

    def add(self, entries: list[dict[str, Any]]) -> None:
        self._starts.append(self._file.tell())
        for entry in reversed(entries):
            self._file.write(to_json(entry) + b"\n")

    def read_backwards(self) -> Iterator[bytes]:
        end = self._file.tell()
        for start in reversed(self._starts):
            self._file.seek(start)
            yield from self._file.read(end - start).splitlines()
            end = start
