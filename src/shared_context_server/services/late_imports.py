"""Packages that a server imports when it is asked for what needs them, not at its start.

Each takes some tens of milliseconds and some megabytes, and many servers never need it. The functions that use one import
it themselves. Who calls these from the event loop imports it in a thread first.
"""

from __future__ import annotations

import asyncio
import importlib

SEARCH = ("regex", "rapidfuzz.fuzz", "rapidfuzz.process")
MENTIONS = ("regex",)

_imported: set[str] = set()


async def import_late(names: tuple[str, ...]) -> None:
    """Import these, unless it was done before, while the event loop goes on."""
    if not _imported.issuperset(names):
        await asyncio.to_thread(_import_all, names)
        _imported.update(names)


def _import_all(names: tuple[str, ...]) -> None:
    for name in names:
        importlib.import_module(name)
