"""What each store says of itself when it is looked at, while it is in use."""

from __future__ import annotations

import asyncio

from shared_context_server.settings import Settings
from shared_context_server.storage import Store, inspect_storage
from tests.storage.builders import add_message, add_session


async def test_a_sound_store_has_no_problems_and_tells_its_newest_message(
    any_settings: Settings, store: Store
) -> None:
    for is_thorough in (False, True):
        empty = await asyncio.to_thread(inspect_storage, any_settings, is_thorough=is_thorough)
        assert (empty.newest_message_id, empty.problems) == (0, [])
        assert "SQL" in empty.description
    await add_session(store)
    for _ in range(3):
        message = await add_message(store)
    filled = await asyncio.to_thread(inspect_storage, any_settings, is_thorough=True)
    assert (filled.newest_message_id, filled.problems) == (message.id, [])
