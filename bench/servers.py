"""Servers as operators start them, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.keys import API_KEY


class StartError(Exception):
    """A server ended before it served; the text is what it said."""


@dataclass(frozen=True)
class Server:
    port: int
    pid: int


def warm_environment(cache: Path, source: Path | None = None) -> dict[str, str]:
    """The environment of a process whose compiled modules are kept in `cache`; `source`: where the
    package is imported from, if not from this checkout.

    Without compiled modules, as where PYTHONDONTWRITEBYTECODE is set and nothing was compiled before,
    a start takes twice as long.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kept["PYTHONPYCACHEPREFIX"] = str(cache)
    if source is not None:
        kept["PYTHONPATH"] = str(source)
    return kept


@contextlib.contextmanager
def serve(
    data_dir: str,
    *options: str,
    program: Sequence[str] = ("shared_context_server",),
    environment: dict[str, str] | None = None,
    is_limited: bool = False,
    **settings: str,
) -> Iterator[Server]:
    """A server on a free port; `settings` are further ones of its environment, `program` a module that
    runs it, with arguments. Calls have no rate limit, unless it is_limited as by default.

    Raises StartError.
    """
    fixed = {"API_KEY": API_KEY, "LOG_FORMAT": "json", "HTTP_PORT": "0"}
    fixed |= {} if is_limited else {"RATE_LIMIT": "off"}
    command = [sys.executable, "-m", *program, "serve", "--data-dir", data_dir]
    with subprocess.Popen(
        [*command, *options],
        env=(os.environ if environment is None else environment) | fixed | settings,
        cwd=data_dir,  # not a checkout, whose .env would count
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Server(_read_port(process), process.pid)
        finally:
            process.terminate()
            process.communicate()


def _read_port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        if '"health"' in line:
            return int(json.loads(line)["health"].split(":")[-1].split("/")[0])
        said.append(line)
    raise StartError("".join(said[-20:]).strip() or "it ended without a word")
