"""A seqlock: one writer and many readers share a record without locks.

The sequence word is odd while the writer writes. A reader reads the word, copies the record, and
reads the word again. The copy counts only if both times the word had the same even value. So a
reader never returns a mix of two records, and it never blocks the writer.

The word is written by one aligned 32-bit store (`memoryview.cast("I")`). `struct.pack_into` would
first store a zero, which readers could see.
"""

import platform
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from shared_context_server.clock.layout import RECORD_SIZE, SEQUENCE_WORD

T = TypeVar("T")

SEQUENCE_MASK = 0xFFFFFFFF
ROUNDS = 40
SPINS = 200
PAUSE_S = 0.0005
"""A write takes less than a microsecond, so one round of attempts spans many writes. Readers wait
only if the writer was descheduled in the middle of a write; it runs again within milliseconds."""

ORDERS_STORES_AND_LOADS = platform.machine().lower() in {"x86_64", "amd64", "i386", "i686"}
"""x86 keeps stores in order and loads in order. Other processors need memory fences."""


def open_writer(view: memoryview) -> Callable[[bytes], None]:
    """A function that replaces the record in `view` atomically.

    It continues from the sequence word in `view`. So readers of a segment see the word grow even
    if an earlier writer died in the middle of a write. Only one thread of one process may call it.
    It ignores bytes 16 to 19 of the given record, where the sequence word is.
    """
    word = _sequence_word(view)
    head, tail = view[:16], view[20:RECORD_SIZE]
    sequence = word[0] & ~1

    def write(record: bytes) -> None:
        nonlocal sequence
        new_head, new_tail = record[:16], record[20:RECORD_SIZE]
        word[0] = sequence | 1
        head[:] = new_head
        tail[:] = new_tail
        sequence = (sequence + 2) & SEQUENCE_MASK
        word[0] = sequence

    def write_fenced(record: bytes) -> None:
        nonlocal sequence
        new_head, new_tail = record[:16], record[20:RECORD_SIZE]
        word[0] = sequence | 1
        fence()
        head[:] = new_head
        tail[:] = new_tail
        fence()
        sequence = (sequence + 2) & SEQUENCE_MASK
        word[0] = sequence

    fence = _make_fence()
    return write if ORDERS_STORES_AND_LOADS else write_fenced


class LastCopy:
    """The last complete copy of a record; None before the first one."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None


def open_reader(
    view: memoryview,
    copy: Callable[[memoryview], T],
    give_up: Callable[[int], T],
    last: LastCopy | None = None,
) -> Callable[[], T]:
    """A function that returns `copy(view)` of one complete record, and stores it in `last`.

    If it gets no complete record for about 25 ms, it returns `give_up(sequence word)`, which may
    raise. While the writer stays in the middle of the same write, further calls do so at once.
    """
    last = last or LastCopy()
    word = _sequence_word(view)
    if not ORDERS_STORES_AND_LOADS:
        copy = _add_fences(copy)
    abandoned = -1

    def read() -> T:
        sequence = word[0]
        value = copy(view)
        if word[0] == sequence and not sequence & 1:
            last.value = value
            return value
        return retry()

    def retry() -> T:
        nonlocal abandoned
        sequence = word[0]
        if sequence == abandoned:
            return give_up(sequence)
        for _ in range(ROUNDS):
            for _ in range(SPINS):
                sequence = word[0]
                if sequence & 1:
                    continue
                value = copy(view)
                if word[0] == sequence:
                    last.value = value
                    return value
            time.sleep(PAUSE_S)
        abandoned = sequence if sequence & 1 else -1
        return give_up(sequence)

    return read


def _sequence_word(view: memoryview) -> memoryview:
    return view.cast("B").cast("I")[SEQUENCE_WORD : SEQUENCE_WORD + 1]


def _add_fences(copy: Callable[[memoryview], T]) -> Callable[[memoryview], T]:
    fence = _make_fence()

    def copy_fenced(view: memoryview) -> T:
        fence()
        value = copy(view)
        fence()
        return value

    return copy_fenced


def _make_fence() -> Callable[[], None]:
    """A full memory barrier made of a lock: Python has no other one."""
    lock = threading.Lock()
    acquire, release = lock.acquire, lock.release

    def fence() -> None:
        acquire()
        release()
        acquire()
        release()

    return fence
