"""The commands `backup` and `restore`: copy the database to a file, and replace it by such a file."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.banner import without_password
from shared_context_server.cli.hub.options import AsJson, Quiet
from shared_context_server.cli.options import StorageOptions
from shared_context_server.cli.progress import show_working
from shared_context_server.cli.show.values import print_json
from shared_context_server.storage import back_up_storage, restore_storage

_BYTES_PER_MB = 1_000_000


async def backup(
    file: Annotated[Path, Parameter(help="The file to write.")],
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    force: Annotated[bool, Parameter(negative="", help="Replace the file if it exists.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a consistent copy of the database and check it. Servers can keep running."""
    settings = options.load()
    with show_working("Copying the database"):
        size = await asyncio.to_thread(back_up_storage, settings, file, force=force)
    if as_json:
        print_json({"file": str(file), "bytes": size})
    if quiet or as_json:
        return
    _say(
        f"Copied {without_password(settings.storage_url)} to {file} ({size / _BYTES_PER_MB:.1f} MB)."
    )
    _say(f"Keep {settings.secrets_path} with it: without its keys no token is valid any more.")


async def restore(
    file: Annotated[Path, Parameter(help="A file that backup has written.")],
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Replace the database by such a file. The old database is kept under another name.

    Stop all servers first. The file is checked before anything is changed.
    """
    settings = options.load()
    with show_working("Checking and restoring the database"):
        restored = await asyncio.to_thread(restore_storage, settings, file)
    if as_json:
        aside = None if restored.aside is None else str(restored.aside)
        print_json({"file": str(file), "old_database": aside, "schema": asdict(restored.schema)})
    if quiet or as_json:
        return
    _say(f"Restored {without_password(settings.storage_url)} from {file}.")
    if restored.aside is not None:
        _say(f"The old database is now {restored.aside}.")
    if restored.schema.current < restored.schema.latest:
        _say("Its schema is older: the next start brings it up to date.")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
