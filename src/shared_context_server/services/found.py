"""Read what an index has found: what is still there and the caller may see."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from shared_context_server import policy
from shared_context_server.errors import Conflict, MemoryNotFound, SessionNotFound
from shared_context_server.models import Caller, MemoryAddress, MemoryEntry, Message
from shared_context_server.services.context import SearchServices
from shared_context_server.services.memory import get_memory
from shared_context_server.services.search_request import SearchRequest


async def read_messages(
    services: SearchServices, caller: Caller, ids: Iterable[int]
) -> AsyncGenerator[list[Message]]:
    """Yield the messages in pages, in the order of the ids."""
    left = list(dict.fromkeys(ids))
    while left:
        messages = await services.store.messages.list_by_ids(caller, left)
        yield [message for message in messages if policy.can_see_message(caller, message)]
        # The page may end before the ids do.
        left = left[left.index(messages[-1].id) + 1 :] if messages else []


async def read_entries(
    services: SearchServices,
    caller: Caller,
    session_id: str | None,
    addresses: Iterable[MemoryAddress],
) -> AsyncGenerator[MemoryEntry]:
    """Yield the memory entries; of this session only, unless it is None."""
    for address in dict.fromkeys(addresses):
        is_elsewhere = session_id not in (None, address.session_id)
        if is_elsewhere or address.owner not in (None, caller.agent_id):
            continue
        try:
            entry = await get_memory(services, caller, address)
        except (MemoryNotFound, SessionNotFound, Conflict):
            continue  # removed or expired meanwhile, not for this caller, or not readable
        yield entry


def is_wanted_message(message: Message, request: SearchRequest) -> bool:
    """Whether the filters of the search let the message pass."""
    return (
        (request.visibility is None or message.visibility is request.visibility)
        and (request.sender is None or message.sender == request.sender)
        and (request.start_time is None or message.timestamp >= request.start_time)
        and (request.end_time is None or message.timestamp <= request.end_time)
    )
