"""Import large packages on first use instead of at startup.

Each takes tens of milliseconds and some megabytes, and many servers never need it. A function that
uses one imports it itself. Code on the event loop first imports it in a thread with import_late.
"""

from __future__ import annotations

import asyncio
import importlib

SEARCH = ("regex", "rapidfuzz.distance", "rapidfuzz.fuzz", "rapidfuzz.process")
MENTIONS = ("regex",)
INDEX = ("tantivy",)

_imported: set[str] = set()


async def import_late(names: tuple[str, ...]) -> None:
    """Import these packages in a thread, unless they are imported already."""
    if not _imported.issuperset(names):
        await asyncio.to_thread(_import_all, names)
        _imported.update(names)


def _import_all(names: tuple[str, ...]) -> None:
    for name in names:
        importlib.import_module(name)
