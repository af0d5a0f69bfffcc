"""How far the clock of a boot of a machine has been: for processes that start there later."""

from __future__ import annotations

from shared_context_server.storage.postgres.pool import Connection

_FIND = "SELECT offset_us FROM clock_offsets WHERE boot_id = $1"
_NOTE = """
    INSERT INTO clock_offsets (boot_id, offset_us) VALUES ($1, $2)
    ON CONFLICT (boot_id) DO UPDATE
        SET offset_us = greatest(clock_offsets.offset_us, excluded.offset_us)"""


async def find_offset(connection: Connection, boot_id: str) -> int | None:
    found: int | None = await connection.fetchval(_FIND, boot_id)
    return found


async def note_offset(connection: Connection, boot_id: str, offset_us: int) -> None:
    await connection.execute(_NOTE, boot_id, offset_us)
