"""A seqlock: one writer and many readers share a record without locks.

The sequence word is odd while the writer writes. A reader reads the word, copies the record, and
reads the word again. The copy counts only if both times the word had the same even value. So a
reader never returns a mix of two records, and it never blocks the writer.

The word is written by one aligned 32-bit store (`memoryview.cast("I")`). `struct.pack_into` would
first store a zero, which readers could see.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

SEQUENCE_MASK = 0xFFFFFFFF


def find_processor() -> str:
    """The kind of processor, as `platform.machine` names it, whose module takes half a megabyte."""
    if hasattr(os, "uname"):
        return os.uname().machine.lower()
    import platform  # noqa: PLC0415

    return platform.machine().lower()


ROUNDS = 40
SPINS = 200
PAUSE_S = 0.0005
"""A write takes less than a microsecond, so one round of attempts spans many writes. Readers wait
only if the writer was descheduled in the middle of a write; it runs again within milliseconds."""

ORDERS_STORES_AND_LOADS = find_processor() in {"x86_64", "amd64", "i386", "i686"}
"""x86 keeps stores in order and loads in order. Other processors need memory fences."""


def open_writer(view: memoryview, sequence_word: int) -> Callable[[bytes], None]:
    """A function that replaces the record in `view` atomically.

    `sequence_word` is the index of the sequence word among the 32-bit words of the record.

    It continues from the sequence word in `view`. So readers of a segment see the word grow even
    if an earlier writer died in the middle of a write. Only one thread of one process may call it.
    It ignores the sequence word of the given record.
    """
    word = _open_word(view, sequence_word)
    head_end, tail_start = 4 * sequence_word, 4 * sequence_word + 4
    head, tail = view[:head_end], view[tail_start:]
    sequence = word[0] & ~1

    def write(record: bytes) -> None:
        nonlocal sequence
        new_head, new_tail = record[:head_end], record[tail_start:]
        word[0] = sequence | 1
        head[:] = new_head
        tail[:] = new_tail
        sequence = (sequence + 2) & SEQUENCE_MASK
        word[0] = sequence

    def write_fenced(record: bytes) -> None:
        nonlocal sequence
        new_head, new_tail = record[:head_end], record[tail_start:]
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
    sequence_word: int,
    copy: Callable[[memoryview], T],
    give_up: Callable[[int], T],
    last: LastCopy | None = None,
) -> Callable[[], T]:
    """A function that returns `copy(view)` of one complete record, and stores it in `last`.

    If it gets no complete record for about 25 ms, it returns `give_up(sequence word)`, which may
    raise. While the writer stays in the middle of the same write, further calls do so at once.
    """
    last = last or LastCopy()
    word = _open_word(view, sequence_word)
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


def open_unverified_reader(
    view: memoryview, sequence_word: int, copy: Callable[[memoryview], T]
) -> Callable[[], T]:
    """A function that returns `copy(view)` from a writer that counts its writes, but not by a seqlock.

    Such a writer increments the number after each write, so no reader can see that a write is in
    progress. The copy is repeated until two in a row are the same bytes, with the same number: that
    leaves only writes that stood still in the middle meanwhile. After 25 ms the last copy counts.
    """
    word = _open_word(view, sequence_word)

    def read() -> T:
        for _ in range(ROUNDS):
            for _ in range(SPINS):
                sequence = word[0]
                first = bytes(view)
                if bytes(view) == first and word[0] == sequence:
                    return copy(memoryview(first))
            time.sleep(PAUSE_S)
        return copy(memoryview(bytes(view)))

    return read


def _open_word(view: memoryview, index: int) -> memoryview:
    return view.cast("B")[4 * index : 4 * index + 4].cast("I")


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
