"""Finds the link that opens the dashboard for the user of the demo."""

from __future__ import annotations

import shlex
import subprocess
from contextlib import suppress
from typing import Final

from shared_context_server.cli import app
from shared_context_server.cli.banner import program_words
from shared_context_server.cli.demo.targets import Target

_COMMAND: Final = "ui"  # prints a link that signs in once
_TIMEOUT_S = 30.0


def describe_dashboard(server: Target) -> list[str]:
    """Lines that say where the dashboard is, and how to come in later."""
    address = f"{server.url}/ui"
    if server.data_dir is None or _COMMAND not in list(app):
        return [f"Dashboard  {address}"]
    again = ["scs", _COMMAND, "--data-dir", server.data_dir]
    return [
        f"Dashboard  {_make_link(server, server.data_dir) or address}",
        f"           works once; for another link: {shlex.join(again)}",
    ]


def _make_link(server: Target, data_dir: str) -> str | None:
    """The link that our command prints. It opens the store, so it gets a process of its own."""
    options = ["--data-dir", data_dir, "--url", server.url, "--no-open"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [*program_words(), _COMMAND, *options],
            env={} if server.is_temporary else None,  # the environment may name another database
            cwd=data_dir,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        return done.stdout.strip() or None
    return None
