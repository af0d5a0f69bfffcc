"""Choose the index for a page of messages, and limit the bytes of a page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from shared_context_server.models import Caller, Session
from shared_context_server.storage.contract import MessageQuery

DEFAULT_PAGE_BYTES = 64 * 1024  # some 20,000 tokens: clients of models stop reading at 25,000
MAX_PAGE_BYTES = 512 * 1024  # so that fifty callers at once stay far below 100 MB
BYTES_PER_ITEM = (
    1024  # a caller that asks for more items than the default page holds gets a larger one
)
ITEM_OVERHEAD_BYTES = 300  # field names, ids and times of one item in an answer

R = TypeVar("R", bound=Any)

Scan = Literal["parent", "sender", "audience", "log", "filtered log"]
"""The index by which the messages of a page are found: of replies, of a sender, of the keys of an
audience, or of the log, in which other messages may lie between those of the page (filtered)."""


def page_budget(limit: int) -> int:
    """Return the bytes that a page of `limit` items may have as stored: contents, metadata and
    recipients, plus ITEM_OVERHEAD_BYTES for each item."""
    return min(max(DEFAULT_PAGE_BYTES, limit * BYTES_PER_ITEM), MAX_PAGE_BYTES)


def take_page(rows: Iterable[R], limit: int, text_columns: tuple[int, ...]) -> tuple[list[R], bool]:
    """Return the rows that fit on one page, at least one, and whether there are more.

    `rows` may hold one more than `limit`, and is read no further than needed. `text_columns`: the
    positions of the columns whose size counts.
    """
    left = page_budget(limit)
    taken: list[R] = []
    for row in rows:
        left -= ITEM_OVERHEAD_BYTES
        for column in text_columns:
            text = row[column]
            left -= (
                len(text) if text.isascii() else count_bytes(text)
            )  # calling count_bytes for each is expensive
        if len(taken) == limit or (left < 0 and taken):
            return taken, True
        taken.append(row)
    return taken, False


def count_bytes(text: str) -> int:
    """Return the text's length in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def choose_scan(caller: Caller, query: MessageQuery) -> Scan:
    """Choose the narrowest index that fits. Callers who are not admins use the index of audiences,
    which also finds the messages of single senders."""
    if query.parent_message_id is not None:
        return "parent"
    if not caller.is_admin:
        return "audience"
    if query.sender is not None:
        return "sender"
    is_filtered = query.visibility or query.start_time or query.end_time
    return "filtered log" if is_filtered else "log"


TIME_RANGE_SEQS = 1000
"""As many messages share a row of time_ranges; the schema's triggers have the number too."""


@dataclass(frozen=True, slots=True)
class SeqRun:
    """The seqs after `after_seq` up to `up_to_seq`. `is_within`: all their times are in the wanted
    range; else some may be."""

    after_seq: int
    up_to_seq: int
    is_within: bool


def join_runs(found: Iterable[tuple[int, bool]], session: Session) -> list[SeqRun]:
    """Join rows of time_ranges, given as (up_to_seq, is_within), into runs. The end of the log,
    which has no row yet, is added. No run begins before the session's first_seq."""
    last_seq = session.last_seq
    tail_after = max(last_seq // TIME_RANGE_SEQS * TIME_RANGE_SEQS, session.removed_up_to)
    runs: list[SeqRun] = []
    for up_to_seq, is_within in sorted(found):
        after_seq = max(up_to_seq - TIME_RANGE_SEQS, session.removed_up_to)
        last = runs[-1] if runs else None
        if last is not None and (last.up_to_seq, last.is_within) == (after_seq, is_within):
            runs[-1] = SeqRun(last.after_seq, up_to_seq, is_within)
        else:
            runs.append(SeqRun(after_seq, up_to_seq, is_within))
    if tail_after < last_seq:
        runs.append(SeqRun(tail_after, last_seq, is_within=False))
    return runs


def uses_time_ranges(scan: Scan, query: MessageQuery) -> bool:
    """Whether time_ranges help the search. They do not for replies, of which there are few."""
    is_timed = query.start_time is not None or query.end_time is not None
    return is_timed and scan in ("audience", "filtered log")
