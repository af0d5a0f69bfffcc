"""Handles standard streams that are closed, cannot be written, or have a limited encoding."""

from __future__ import annotations

import errno
import io
import os
import sys

# Errors of a stream. A command reports errors of a file itself, with the file's name.
_WRITE_FAILURES = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def prepare_streams() -> None:
    """Open closed streams on the null device, because the next opened file would get their number.
    Write characters that the encoding lacks as escapes."""
    for number, name, mode in _STREAMS:
        if getattr(sys, name) is None:
            _open_null(number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def find_output_failure(raised: BaseException) -> OSError | None:
    """Flush stdout. Return the error if that fails, or if `raised` is an error of writing to it.
    After a failed flush the data is dropped, so that the interpreter does not try again at its end."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        _open_null(1)
        return exc
    # Under PYTHONUNBUFFERED there is no buffer, and print() itself has failed.
    if isinstance(raised, OSError) and raised.filename is None and raised.errno in _WRITE_FAILURES:
        return raised
    return None


def _open_null(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
