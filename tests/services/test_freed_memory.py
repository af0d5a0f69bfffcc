"""Memory that was freed is given back to the operating system."""

from __future__ import annotations

import ctypes

import psutil
import pytest

from shared_context_server.services import freed_memory

PIECES = 1000
PIECE_BYTES = 60_000  # small enough to be kept by glibc when it is freed


@pytest.mark.skipif(freed_memory._TRIM is None, reason="the C library is not glibc")
async def test_what_was_freed_is_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    pieces = []
    for _ in range(PIECES):
        piece = libc.malloc(PIECE_BYTES)
        ctypes.memset(piece, 1, PIECE_BYTES)
        # Between two that are freed stands one that is not.
        pieces.append((piece, libc.malloc(2000)))
    for piece, _ in pieces:
        libc.free(piece)
    held = psutil.Process().memory_info().rss
    await freed_memory.release_freed_memory()
    assert held - psutil.Process().memory_info().rss > PIECES * PIECE_BYTES / 2
    for _, between in pieces:
        libc.free(between)
