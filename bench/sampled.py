"""The command line with a sampler in it: which part of the program its processor time goes to.

Run as `python -m bench.sampled FILE serve …`. SIGUSR1 begins to sample, and SIGUSR2 writes the samples to
FILE, as JSON. A sample is taken each time the process has used INTERVAL_S of processor time, in
whatever thread: what the main thread is in then is counted. Where it waits, another thread has used the time.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from shared_context_server.cli import main

INTERVAL_S = 0.002
OTHER_THREADS = "event loop, and threads of SQLite"
# What the loop calls first for a request: a signal that came while the main thread waited is handled there.
WOKEN = "data_received"

_OURS = re.compile(r"shared_context_server/(\w+)(?:\.py)?")
_LIBRARY = re.compile(r"site-packages/(\w+)")
_NAMES = {
    "mcp": "mcp, fastmcp, mcp_types",
    "fastmcp": "mcp, fastmcp, mcp_types",
    "mcp_types": "mcp, fastmcp, mcp_types",
    "pydantic_core": "pydantic",
    "aiosqlitepool": "aiosqlite",
    "sse_starlette": "starlette",
}

_counts: Counter[str] = Counter()


def _find_part(frame: FrameType | None) -> str:
    """The package of the innermost function that is not the standard library's."""
    while frame is not None and not frame.f_code.co_filename.endswith("asyncio/runners.py"):
        path = frame.f_code.co_filename
        if frame.f_code.co_name == WOKEN:
            break
        if found := _OURS.search(path):
            return f"ours: {found[1]}"
        if found := _LIBRARY.search(path):
            return _NAMES.get(found[1], found[1])
        frame = frame.f_back
    return OTHER_THREADS


def _sample(_signal: int, frame: FrameType | None) -> None:
    _counts[_find_part(frame)] += 1


def _begin(_signal: int, _frame: FrameType | None) -> None:
    _counts.clear()
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)


def _end(_signal: int, _frame: FrameType | None) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    unfinished = _file.with_suffix(".part")
    unfinished.write_text(json.dumps(_counts), encoding="utf-8")
    unfinished.rename(_file)


if __name__ == "__main__":
    _file = Path(sys.argv.pop(1))
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR1, _begin)
    signal.signal(signal.SIGUSR2, _end)
    main()
