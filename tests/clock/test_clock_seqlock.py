import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.clock import seqlock
from shared_context_server.clock.layout import CLOCK_LAYOUT, RECORD_SIZE

ROOT = Path(__file__).parents[2]
WORD = CLOCK_LAYOUT.sequence_word


class GaveUpError(Exception):
    pass


def give_up(sequence: int) -> NoReturn:
    raise GaveUpError(sequence)


def fill(number: int) -> bytes:
    """A record all of whose bytes agree."""
    return bytes([number % 256]) * RECORD_SIZE


def payload_of(view: memoryview) -> bytes:
    return bytes(view[:16]) + bytes(view[20:])


def sequence_of(view: memoryview) -> int:
    return int(view.cast("I")[4])


def test_a_reader_gets_what_the_writer_wrote_last():
    view = memoryview(bytearray(RECORD_SIZE))
    write, read = (
        seqlock.open_writer(view, WORD),
        seqlock.open_reader(view, WORD, payload_of, give_up),
    )
    for number in (1, 2, 3):
        write(fill(number))
        assert set(read()) == {number}
        assert sequence_of(view) == 2 * number


def test_a_writer_goes_on_where_one_died_in_the_middle_of_a_write():
    view = memoryview(bytearray(RECORD_SIZE))
    view.cast("I")[4] = 41
    seqlock.open_writer(view, WORD)(fill(5))
    assert sequence_of(view) == 42
    assert set(seqlock.open_reader(view, WORD, payload_of, give_up)()) == {5}


def test_the_sequence_word_wraps_to_zero_and_stays_even():
    view = memoryview(bytearray(RECORD_SIZE))
    view.cast("I")[4] = 2**32 - 4
    write = seqlock.open_writer(view, WORD)
    seen = []
    for number in range(4):
        write(fill(number))
        seen.append(sequence_of(view))
    assert seen == [2**32 - 2, 0, 2, 4]


def test_a_reader_gives_up_on_an_unfinished_write_within_a_bound_and_then_at_once():
    view = memoryview(bytearray(RECORD_SIZE))
    view.cast("I")[4] = 7
    read = seqlock.open_reader(view, WORD, payload_of, give_up)
    with pytest.raises(GaveUpError, match="7"):
        read()
    copies = []
    read_again = seqlock.open_reader(view, WORD, lambda v: copies.append(1), give_up)
    with pytest.raises(GaveUpError):
        read_again()
    assert len(copies) <= 1 + seqlock.ROUNDS * seqlock.SPINS
    copies.clear()
    with pytest.raises(GaveUpError):
        read_again()
    assert len(copies) == 1


def test_a_reader_keeps_its_last_record_for_the_time_of_an_unfinished_write():
    view = memoryview(bytearray(RECORD_SIZE))
    write, last = seqlock.open_writer(view, WORD), seqlock.LastCopy()
    read = seqlock.open_reader(view, WORD, payload_of, lambda _: last.value, last)
    write(fill(1))
    write(fill(2))
    assert set(read()) == {2}
    view.cast("I")[4] |= 1
    view[:8] = fill(3)[:8]
    assert set(read()) == {2}
    write(fill(4))
    assert set(read()) == {4}


def test_a_reader_recovers_once_the_write_is_finished():
    view = memoryview(bytearray(RECORD_SIZE))
    view.cast("I")[4] = 7
    read = seqlock.open_reader(view, WORD, payload_of, give_up)
    with pytest.raises(GaveUpError):
        read()
    seqlock.open_writer(view, WORD)(fill(9))
    assert set(read()) == {9}


interruptions = st.lists(
    st.tuples(st.integers(0, RECORD_SIZE), st.integers(0, 3), st.booleans()), max_size=20
)


@given(interruptions, st.integers(0, 2**31 - 1).map(lambda n: 2 * n))
def test_no_interleaving_makes_a_reader_return_a_mix(interrupted_at, first_sequence):
    """Between the two halves of a copy the writer does whole writes, or begins one."""
    view = memoryview(bytearray(RECORD_SIZE))
    words = view.cast("I")
    words[4] = first_sequence
    write = seqlock.open_writer(view, WORD)
    write(fill(0))
    plan = iter(interrupted_at)
    number = 0

    def copy(source: memoryview) -> bytes:
        nonlocal number
        split, whole_writes, begins_one = next(plan, (0, 0, False))
        first_half = bytes(source[:split])
        for _ in range(whole_writes):
            number += 1
            write(fill(number))
        if begins_one:
            # As the writer does it: odd, then half of the fields, then all of it and even.
            words[4] |= 1
            source[:8] = fill(number + 1)[:8]
        second_half = bytes(source[split:])
        if begins_one:
            number += 1
            write(fill(number))
        copied = first_half + second_half
        return copied[:16] + copied[20:]

    read = seqlock.open_reader(view, WORD, copy, give_up)
    for _ in range(5):
        assert len(set(read())) == 1


def test_that_property_would_catch_a_reader_without_the_lock():
    view = memoryview(bytearray(RECORD_SIZE))
    write = seqlock.open_writer(view, WORD)
    write(fill(1))
    first_half = bytes(view[:16])
    write(fill(2))
    assert len(set(first_half + bytes(view[20:]))) == 2


def test_fences_make_the_same_promises(monkeypatch):
    """What runs on processors that reorder memory accesses; here only its logic can be tested."""
    monkeypatch.setattr(seqlock, "ORDERS_STORES_AND_LOADS", False)
    view = memoryview(bytearray(RECORD_SIZE))
    write, read = (
        seqlock.open_writer(view, WORD),
        seqlock.open_reader(view, WORD, payload_of, give_up),
    )
    write(fill(3))
    assert set(read()) == {3}
    view.cast("I")[4] |= 1
    with pytest.raises(GaveUpError):
        read()


def count_torn_reads(*arguments: str) -> tuple[int, int]:
    """(reads, torn reads) of a run of the soak test's own program."""
    run = subprocess.run(
        [sys.executable, "-m", "bench.clock_torn", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    words = run.stdout.split()
    assert "reads" in words, run.stderr
    return int(words[words.index("reads") + 1]), int(words[words.index("torn") + 1])


def test_no_read_is_torn_by_a_writer_that_never_rests():
    reads, torn = count_torn_reads("--reads", "400000", "--readers", "1")
    assert reads >= 400_000
    assert torn == 0


def test_the_same_check_finds_torn_reads_when_the_seqlock_is_disabled():
    deadline_s = time.monotonic() + 60
    torn = 0
    while not torn and time.monotonic() < deadline_s:
        _, torn = count_torn_reads("--reads", "400000", "--readers", "1", "--without-seqlock")
    assert torn > 0
