"""Finds the link that opens the dashboard for the user of the demo."""

from __future__ import annotations

import shlex
import subprocess
from contextlib import suppress
from typing import Final

from shared_context_server.cli.banner import program_words
from shared_context_server.cli.demo.targets import Target

_COMMAND: Final = "ui"  # prints a link that signs in once
_IN_TERMINAL: Final = "top"  # shows the agents in a terminal
_TIMEOUT_S = 30.0


def describe_access(server: Target) -> list[str]:
    """Lines with the commands to paste, and a link that signs in once. Takes a second or more."""
    if server.data_dir is None:
        return []
    lines = []
    link = _make_link(server, server.data_dir)
    if link is not None:
        lines.append(f"Sign in    {link}")
        lines.append(
            f"           works once; for another link: {_command(_COMMAND, server.data_dir)}"
        )
    lines.append(f"Terminal   {_command(_IN_TERMINAL, server.data_dir)}")
    return lines


def _command(name: str, data_dir: str) -> str:
    return shlex.join([*program_words(), name, "--data-dir", data_dir])


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
