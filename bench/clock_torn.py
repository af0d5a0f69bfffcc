"""Are reads ever torn? One writer that never rests, readers that check every record they get.

    python -m bench.clock_torn --reads 100000000

All fields of a record are derived from one number, so a mix of two records shows. The readers use
the package's own reading function, on a real segment, from processes of their own. With
--without-seqlock they copy the record without looking at its sequence word: the same check must
then find torn reads, or it could not have found any before. The exit status is 1 if there are any.

The writer has a core of its own where there are two: sharing one, it would stand still while they
read, and there would be nothing to see. `records-seen` tells how often the record had changed.
"""

import argparse
import os
import secrets
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from shared_context_server.clock.segment import (
    attach_segment,
    create_segment,
    unlink_segment,
)
from shared_context_server.clock.seqlock import open_reader, open_writer

FIELDS = struct.Struct("<QQIIQQQQQ")
"""Eight numbers that agree; the third, the sequence word, is the writer's own."""
SEQUENCE_WORD = 4
NUMBERS = 1 << 32
BATCH = 20_000


def write_forever(name: str) -> None:
    """Write until standard input closes, which the main process sees to."""
    _use_cores(lambda cores: cores[:1])
    segment = create_segment(name, FIELDS.size)
    write = open_writer(segment.view, SEQUENCE_WORD)
    pack = FIELDS.pack
    number = 0
    os.set_blocking(sys.stdin.fileno(), False)
    print("writing", flush=True)
    while _is_open(sys.stdin.fileno()):
        for _ in range(BATCH):
            number = (number + 1) % NUMBERS
            write(pack(number, number, 0, number, number, number, number, number, number))
    unlink_segment(segment)


def read_and_check(name: str, reads: int, *, with_seqlock: bool) -> None:
    """Print how many reads were made, how many were torn, and how many records were seen."""
    _use_cores(lambda cores: cores[1:] or cores)
    view = attach_segment(name, FIELDS.size).view
    copy: Callable[[memoryview], tuple[int, ...]] = FIELDS.unpack_from
    read: Callable[[], tuple[int, ...]]
    if with_seqlock:
        read = open_reader(view, SEQUENCE_WORD, copy, _give_up)
    else:

        def read() -> tuple[int, ...]:
            return copy(view)

    torn = records = done = gave_up = 0
    last = -1
    while done < reads:
        try:
            for _ in range(min(BATCH, reads - done)):
                a, b, _, c, d, e, f, g, h = read()
                done += 1
                if a != last:
                    records += 1
                    last = a
                if not a == b == c == d == e == f == g == h:
                    torn += 1
        except RuntimeError:
            gave_up += 1
    print(done, torn, records, gave_up)


def run(reads: int, readers: int, *, with_seqlock: bool) -> int:
    name = f"torn{secrets.token_hex(6)}"
    started_s = time.monotonic()
    me = [sys.executable, "-m", "bench.clock_torn"]
    writer = subprocess.Popen(
        [*me, "--role", "writer", "--name", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdin is not None
    writer.stdout.readline()
    each = -(-reads // readers)
    command = [*me, "--role", "reader", "--name", name, "--reads", str(each)]
    if not with_seqlock:
        command.append("--without-seqlock")
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(readers)
    ]
    outputs = [process.communicate()[0] for process in processes]
    writer.stdin.close()
    writer.wait()
    writer.stdout.close()
    done, torn, records, gave_up = (
        sum(column)
        for column in zip(*(map(int, output.split()) for output in outputs), strict=True)
    )
    print(
        f"reads {done} torn {torn} records-seen {records} gave-up {gave_up} readers {readers} "
        f"seqlock {'on' if with_seqlock else 'OFF'} seconds {time.monotonic() - started_s:.1f}"
    )
    return 1 if torn else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.clock_torn", description=__doc__)
    parser.add_argument("--reads", type=int, default=100_000_000, help="in all")
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--without-seqlock", action="store_true")
    parser.add_argument("--role", choices=("main", "writer", "reader"), default="main")
    parser.add_argument("--name", default="")
    given = parser.parse_args()
    if given.role == "writer":
        write_forever(given.name)
        return 0
    if given.role == "reader":
        read_and_check(given.name, given.reads, with_seqlock=not given.without_seqlock)
        return 0
    return run(given.reads, given.readers, with_seqlock=not given.without_seqlock)


def _give_up(sequence: int) -> NoReturn:
    raise RuntimeError(sequence)


def _use_cores(choose: Callable[[list[int]], list[int]]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, choose(sorted(os.sched_getaffinity(0))))


def _is_open(fd: int) -> bool:
    try:
        return os.read(fd, 1) != b""
    except BlockingIOError:
        return True


if __name__ == "__main__":
    sys.exit(main())
