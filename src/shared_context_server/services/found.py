"""Read what an index has found: what is still there and the caller may see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import Conflict, MemoryNotFound, SessionNotFound
from shared_context_server.models import Caller, MemoryAddress, MemoryEntry, Message
from shared_context_server.services.batches import Item
from shared_context_server.services.search_request import SearchRequest
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import Store


async def read_messages(
    store: Store, caller: Caller, ids: Iterable[int]
) -> AsyncIterator[list[Message]]:
    """Yield the messages in pages, in the order of the ids."""
    left = list(dict.fromkeys(ids))
    while left:
        messages = await store.messages.list_by_ids(caller, left)
        yield [message for message in messages if policy.can_see_message(caller, message)]
        # The page may end before the ids do.
        left = left[left.index(messages[-1].id) + 1 :] if messages else []


async def read_entries(
    store: Store, caller: Caller, session_id: str | None, addresses: Iterable[MemoryAddress]
) -> list[MemoryEntry]:
    """Return the memory entries; of this session only, unless it is None."""
    entries = []
    for address in dict.fromkeys(addresses):
        is_elsewhere = session_id not in (None, address.session_id)
        if is_elsewhere or (address.owner is not None and address.owner != caller.agent_id):
            continue
        guard = partial(policy.require_session_read, caller)
        try:
            entry = await store.memory.get(
                address, now=utc_now(), guard=None if address.session_id is None else guard
            )
        except (MemoryNotFound, SessionNotFound, Conflict):
            continue  # removed, expired or changed meanwhile, or not for this caller
        entries.append(entry)
    return entries


def is_wanted(item: Item, request: SearchRequest) -> bool:
    """Whether the filters of the search let the item pass."""
    if isinstance(item, Message):
        sender, at = item.sender, item.timestamp
        is_shown = request.visibility is None or item.visibility is request.visibility
    else:
        sender, at = item.updated_by, item.updated_at
        is_shown = request.visibility is None
    return (
        is_shown
        and (request.sender is None or sender == request.sender)
        and (request.start_time is None or at >= request.start_time)
        and (request.end_time is None or at <= request.end_time)
    )
