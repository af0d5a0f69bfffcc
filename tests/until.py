"""Waiting for a state that sets no event for the one who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 30


async def until(is_so: Callable[[], bool]) -> None:
    """Let others run until it is so, within reason."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 - a state outside this task's reach
            await asyncio.sleep(0.002)
