"""Open exported files for writing and reading, and the options that sign and check them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

from cyclopts import Parameter

from shared_context_server.errors import ConfigurationError, CopyError

STANDARD_STREAM = "-"

SignOption = Annotated[
    Path | None,
    Parameter(help="Sign the file with this Ed25519 key, a PEM file as openssl genpkey writes it."),
]
PublicKeyOption = Annotated[
    Path | None,
    Parameter(help="The file has to be signed with the private key of this one, a PEM file."),
]


@contextmanager
def open_output(name: str, *, force: bool) -> Iterator[BinaryIO]:
    """Open a new file, mode 0600, for writing and reading. It gets its name at the end of the block.

    Raises ConfigurationError, or CopyError if writing fails. `-` is standard output.
    """
    if name == STANDARD_STREAM:
        with _explain_failure("standard output"):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists() and not force:
        raise ConfigurationError(f"{path} exists. Name another file, or use --force.")
    try:
        # Mode 0600, like the database: it contains all private messages.
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc.strerror}.") from exc
    try:
        with _explain_failure(name):
            with open(descriptor, "w+b") as out:  # noqa: PTH123 - a descriptor, not a path
                yield out
                out.flush()
                os.fsync(out.fileno())
            Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


@contextmanager
def open_input(name: str) -> Iterator[BinaryIO]:
    """Open an input file that can be read twice; `-` is standard input, kept in a temporary file.

    Raises ConfigurationError and CopyError.
    """
    if name == STANDARD_STREAM:
        with tempfile.TemporaryFile() as spool:
            with _explain_failure(f"a temporary file in {tempfile.gettempdir()}"):
                shutil.copyfileobj(sys.stdin.buffer, spool)
            yield spool
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - closed below
    except OSError as exc:
        raise ConfigurationError(f"{name} cannot be read: {exc.strerror}.") from exc
    with file:
        yield file


@contextmanager
def _explain_failure(what: str) -> Iterator[None]:
    """Report a full disk or a broken pipe as CopyError, without a traceback."""
    try:
        yield
    except OSError as exc:
        raise CopyError(f"{what} cannot be written: {exc.strerror}.") from exc
