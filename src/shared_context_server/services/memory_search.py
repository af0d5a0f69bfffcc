"""List the memory entries that a caller may see, for a search without an index."""

from __future__ import annotations

from collections.abc import AsyncIterator

from shared_context_server.errors import SessionNotFound
from shared_context_server.models import Caller, MemoryAddress, MemoryScope
from shared_context_server.services.context import Services
from shared_context_server.services.memory import list_memory
from shared_context_server.services.sessions import list_session_ids

LISTED_AT_ONCE = 100


async def list_addresses(
    services: Services, caller: Caller, session_id: str | None
) -> AsyncIterator[list[MemoryAddress]]:
    """Yield pages of the caller's own and the shared entries: of the session, or of no session and
    of all that the caller may see."""
    async for place in _list_places(services, caller, session_id):
        for scope in MemoryScope:
            cursor: str | None = None
            while True:
                try:
                    page = await list_memory(
                        services,
                        caller,
                        session_id=place,
                        scope=scope,
                        prefix="",
                        limit=LISTED_AT_ONCE,
                        cursor=cursor,
                    )
                except SessionNotFound:
                    if session_id is not None:
                        raise
                    break  # deleted meanwhile
                yield [listing.address for listing in page.entries]
                cursor = page.next_cursor
                if cursor is None:
                    break


async def _list_places(
    services: Services, caller: Caller, session_id: str | None
) -> AsyncIterator[str | None]:
    yield session_id
    if session_id is None:
        async for visible in list_session_ids(services, caller):
            yield visible
