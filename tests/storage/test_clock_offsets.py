"""What is kept of the clocks of machines."""

from __future__ import annotations

from shared_context_server.storage import Storage


async def test_the_largest_offset_of_each_boot_is_kept(storage: Storage) -> None:
    assert await storage.find_clock_offset("one") is None
    await storage.note_clock_offset("one", 5)
    await storage.note_clock_offset("one", 7_000_000_000_000_000)
    await storage.note_clock_offset("one", 6)
    await storage.note_clock_offset("two", -1)
    assert await storage.find_clock_offset("one") == 7_000_000_000_000_000
    assert await storage.find_clock_offset("two") == -1
