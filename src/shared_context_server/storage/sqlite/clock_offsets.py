"""How far the clock of a boot of this machine has been: for processes that start later."""

from __future__ import annotations

import sqlite3

_FIND = "SELECT offset_us FROM clock_offsets WHERE boot_id = ?"
_NOTE = """
    INSERT INTO clock_offsets (boot_id, offset_us) VALUES (?, ?)
    ON CONFLICT (boot_id) DO UPDATE SET offset_us = max(offset_us, excluded.offset_us)"""


def find_offset(connection: sqlite3.Connection, boot_id: str) -> int | None:
    row = connection.execute(_FIND, (boot_id,)).fetchone()
    return None if row is None else int(row[0])


def note_offset(connection: sqlite3.Connection, boot_id: str, offset_us: int) -> None:
    connection.execute(_NOTE, (boot_id, offset_us))
