"""Standard streams that are closed, cannot be written, or whose encoding lacks a character."""

from __future__ import annotations

import errno
import io
import os
import sys

# Of a stream. Where a file cannot be written, the command says so itself, with the name.
_WRITE_FAILURES = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def prepare_streams() -> None:
    """Open those that are closed on the null device, since the next file that is opened would take
    their number; and have characters that an encoding lacks written as escapes."""
    for number, name, mode in _STREAMS:
        if getattr(sys, name) is None:
            _open_null(number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def find_output_failure(raised: BaseException) -> OSError | None:
    """Write what stdout still holds; why it cannot be written, or could not where that is what a
    command has `raised`. The rest is dropped then, so that the interpreter does not try at its end."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        _open_null(1)
        return exc
    # Under PYTHONUNBUFFERED nothing is held back, and print() has failed.
    if isinstance(raised, OSError) and raised.filename is None and raised.errno in _WRITE_FAILURES:
        return raised
    return None


def _open_null(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
