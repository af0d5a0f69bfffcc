"""The command `completion`: prints the script by which a shell completes this program's commands."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shared_context_server import cli

NAMES = ("scs", "shared-context-server")


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, Parameter(help="The shell.")],
    *,
    name: Annotated[
        str | None, Parameter(help="Complete this program; default: as it was called.")
    ] = None,
) -> None:
    """Print the script by which a shell completes commands, options and their values."""
    called = Path(sys.argv[0]).name
    program = name or (called if called in NAMES else NAMES[0])
    print(cli.app.generate_completion(prog_name=program, shell=shell.value))
