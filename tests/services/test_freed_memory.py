"""Memory that was freed is given back to the operating system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared_context_server.services import freed_memory

PIECES = 1000
PIECE_BYTES = 60_000  # small enough to be kept by glibc when it is freed

# In a process of its own: in one that has run for long the pieces come from what was freed before,
# or lie side by side, and glibc gives those back by itself.
_FREE_AND_RELEASE = f"""
import asyncio, ctypes, psutil
from shared_context_server.services import freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
pieces = []
for _ in range({PIECES}):
    piece = libc.malloc({PIECE_BYTES})
    ctypes.memset(piece, 1, {PIECE_BYTES})
    libc.malloc(2000)  # between two that are freed stands one that is not
    pieces.append(piece)
for piece in pieces:
    libc.free(piece)
held = psutil.Process().memory_info().rss
asyncio.run(freed_memory.release_freed_memory())
print(held - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(freed_memory._TRIM is None, reason="the C library is not glibc")
def test_what_was_freed_is_given_back() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _FREE_AND_RELEASE], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) > PIECES * PIECE_BYTES / 2
