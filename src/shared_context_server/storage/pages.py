"""Pages of a store: where messages are sought, and how many bytes a page may have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from shared_context_server.models import Caller
from shared_context_server.storage.base import MessageQuery

DEFAULT_PAGE_BYTES = 64 * 1024  # some 20,000 tokens: clients of models stop reading at 25,000
MAX_PAGE_BYTES = 512 * 1024  # fifty callers at once stay far below 100 MB
BYTES_PER_ITEM = 1024  # whoever asks for more items than fill the default page gets a larger one
ITEM_OVERHEAD_BYTES = 300  # the names of the fields, ids and times of one item in an answer

R = TypeVar("R", bound=Any)

Place = Literal["parent", "sender", "heard", "log", "filtered log"]


def page_budget(limit: int) -> int:
    """The bytes that a page of `limit` items may have as stored: contents, metadata, recipients, and
    ITEM_OVERHEAD_BYTES an item."""
    return min(max(DEFAULT_PAGE_BYTES, limit * BYTES_PER_ITEM), MAX_PAGE_BYTES)


def take_page(rows: Iterable[R], limit: int, wide: tuple[int, ...]) -> tuple[list[R], bool]:
    """The rows that fit on one page, one at least, and whether there are more. `rows` may hold one
    more than `limit`, and is read no further than needed. `wide`: the columns whose texts count."""
    left = page_budget(limit)
    taken: list[R] = []
    for row in rows:
        left -= ITEM_OVERHEAD_BYTES
        for column in wide:
            left -= count_bytes(row[column])
        if len(taken) == limit or (left < 0 and taken):
            return taken, True
        taken.append(row)
    return taken, False


def count_bytes(text: str) -> int:
    """The text's length in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def choose_place(caller: Caller, query: MessageQuery) -> Place:
    """The narrowest index that fits: of one parent, of one sender, of what a caller hears who is no
    admin, or of the log."""
    if query.parent_message_id is not None:
        return "parent"
    if query.sender is not None:
        return "sender"
    if not caller.is_admin:
        return "heard"
    is_filtered = query.visibility or query.start_time or query.end_time
    return "filtered log" if is_filtered else "log"
