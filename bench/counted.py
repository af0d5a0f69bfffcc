"""The command line with a counter in it: how many tasks its event loop has.

Run as `python -m bench.counted FILE serve …`. SIGUSR1 writes the number to FILE.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from types import FrameType

from shared_context_server.cli import main


def _count(_signal: int, _frame: FrameType | None) -> None:
    unfinished = _file.with_suffix(".part")
    unfinished.write_text(str(len(asyncio.all_tasks())), encoding="utf-8")
    unfinished.rename(_file)


if __name__ == "__main__":
    _file = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, _count)
    main()
