"""Where the messages of a page are sought, whatever keeps them."""

from __future__ import annotations

from typing import Literal

from shared_context_server.models import Caller
from shared_context_server.storage.base import MessageQuery

Place = Literal["parent", "sender", "heard", "log", "filtered log"]


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
