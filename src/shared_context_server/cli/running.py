"""Tells programs on this machine where the server of a data dir listens."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared_context_server.cli.addresses import base_url
from shared_context_server.cli.options import ServerOptions
from shared_context_server.errors import ConfigurationError
from shared_context_server.observability.logs import get_logger
from shared_context_server.remote.access import ADDRESS_FILE, AccessError, read_address
from shared_context_server.settings import Settings

_log = get_logger("cli")


def find_url(options: ServerOptions, settings: Settings) -> str:
    """Return the URL of the server: of the one that runs on the data dir, unless the options name an
    address. Raises ConfigurationError if another user could have written where that is."""
    if options.host is None and options.port is None:
        try:
            running = read_address(str(settings.data_dir))
        except AccessError as exc:
            raise ConfigurationError(str(exc)) from exc
        if running is not None:
            return running
    return base_url(settings.http_host, settings.http_port)


@contextmanager
def published_address(settings: Settings, port: int) -> Iterator[None]:
    """Keep the server's URL in its data dir while the block runs.

    If several servers use the data dir, the file names the one that started last. A server runs
    without the file if it cannot be written, or if it has no data dir.
    """
    path = settings.data_dir / ADDRESS_FILE
    content = json.dumps({"url": base_url(settings.http_host, port), "pid": os.getpid()})
    if settings.data_dir.is_dir():
        try:
            _replace(path, f"{content}\n")
        except OSError as exc:
            _log.info("the server's address is not kept", path=str(path), reason=exc.strerror)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == f"{content}\n":
                path.unlink()


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(path)
