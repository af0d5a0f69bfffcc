"""What is kept of the clocks of machines."""

from __future__ import annotations

from shared_context_server.storage import Store


async def test_the_largest_offset_of_each_boot_is_kept(store: Store) -> None:
    assert await store.maintenance.find_clock_offset("one") is None
    await store.maintenance.note_clock_offset("one", 5)
    await store.maintenance.note_clock_offset("one", 7_000_000_000_000_000)
    await store.maintenance.note_clock_offset("one", 6)
    await store.maintenance.note_clock_offset("two", -1)
    assert await store.maintenance.find_clock_offset("one") == 7_000_000_000_000_000
    assert await store.maintenance.find_clock_offset("two") == -1
