"""One writer, any number of readers, no locks: the sequence word is odd while writing.

A reader copies the record between two looks at the sequence word and keeps the copy only if both
saw the same even number. So it never returns a mix of two records, and never holds up the writer.

The word is stored by one aligned 32-bit store (`memoryview.cast("I")`): `struct.pack_into` zeroes
its target before it writes, and readers would see the zero.
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
"""A write takes a fraction of a microsecond, so a round of attempts outlasts many. Only a writer
that lost its core in the middle of one makes readers wait; it gets it back within milliseconds."""

ORDERS_STORES_AND_LOADS = platform.machine().lower() in {"x86_64", "amd64", "i386", "i686"}
"""x86 cores see each other's stores, and make loads, in program order. Others need fences."""


def open_writer(view: memoryview) -> Callable[[bytes], None]:
    """A function that replaces the record in `view`, all but its sequence word, atomically.

    It goes on from the sequence word it finds, so readers attached to a segment that a dead
    writer left, even in the middle of a write, see the numbers grow. Only one thread of one
    process may use it. Bytes 16 to 19 of what it is given are ignored.
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


class Kept:
    """What was copied last, for the time when nothing whole can be copied. None at first."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None


def open_reader(
    view: memoryview,
    copy: Callable[[memoryview], T],
    give_up: Callable[[int], T],
    kept: Kept | None = None,
) -> Callable[[], T]:
    """A function that returns `copy(view)` of one whole record, and keeps it in `kept`.

    After about 25 ms without one it returns `give_up(sequence word)`, which may raise. It does so
    at once when it is called again while the writer still stands in the middle of the same write.
    """
    kept = kept or Kept()
    word = _sequence_word(view)
    if not ORDERS_STORES_AND_LOADS:
        copy = _put_between_fences(copy)
    abandoned = -1

    def read() -> T:
        sequence = word[0]
        value = copy(view)
        if word[0] == sequence and not sequence & 1:
            kept.value = value
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
                    kept.value = value
                    return value
            time.sleep(PAUSE_S)
        abandoned = sequence if sequence & 1 else -1
        return give_up(sequence)

    return read


def _sequence_word(view: memoryview) -> memoryview:
    return view.cast("B").cast("I")[SEQUENCE_WORD : SEQUENCE_WORD + 1]


def _put_between_fences(copy: Callable[[memoryview], T]) -> Callable[[memoryview], T]:
    fence = _make_fence()

    def copy_fenced(view: memoryview) -> T:
        fence()
        value = copy(view)
        fence()
        return value

    return copy_fenced


def _make_fence() -> Callable[[], None]:
    """A full barrier from what Python has: releasing a lock and taking it again are ordered."""
    lock = threading.Lock()
    acquire, release = lock.acquire, lock.release

    def fence() -> None:
        acquire()
        release()
        acquire()
        release()

    return fence
