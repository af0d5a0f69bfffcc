"""The commands `backup` and `restore`: copy the database to a file, and put it back from there.

An SQLite database is copied as the file it is. One on PostgreSQL is written as a compressed dump,
like that of `export`, and restored in one transaction.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.banner import without_password
from shared_context_server.cli.exported_files import open_input, open_output
from shared_context_server.cli.hub.options import AsJson, Quiet
from shared_context_server.cli.options import StorageOptions
from shared_context_server.cli.progress import ProgressBar, show_working
from shared_context_server.cli.show.values import print_json
from shared_context_server.services.dumps import DumpSource, write_dump
from shared_context_server.services.moving import restore as restore_dump
from shared_context_server.settings import Settings
from shared_context_server.storage import (
    Restored,
    back_up_storage,
    find_schema_status,
    is_one_file,
    open_copier,
    restore_storage,
)

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
    if is_one_file(settings):
        with show_working("Copying the database"):
            size = await asyncio.to_thread(back_up_storage, settings, file, force=force)
    else:
        size = await _back_up_records(settings, file, force=force)
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
    """Put such a file in the place of the database. The file is checked before anything is changed.

    Stop all servers first. SQLite: the old database is kept under another name. PostgreSQL: the
    database must be empty; all is restored, or nothing.
    """
    settings = options.load()
    if is_one_file(settings):
        with show_working("Checking and restoring the database"):
            restored = await asyncio.to_thread(restore_storage, settings, file)
    else:
        restored = await _restore_records(settings, file)
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


async def _back_up_records(settings: Settings, file: Path, *, force: bool) -> int:
    """Write all records of one snapshot to a file and read it again; return its size in bytes."""
    with open_output(str(file), force=force) as out, ProgressBar() as bar:
        async with (
            open_copier(settings, read_only=True) as copier,
            copier.open_snapshot() as snapshot,
        ):
            await write_dump(snapshot, out, bar, is_compressed=True)
        DumpSource(out).check(bar)
        return out.seek(0, os.SEEK_END)


async def _restore_records(settings: Settings, file: Path) -> Restored:
    """Write the records of such a file, all or none, to an empty database."""
    with open_input(str(file)) as dump, ProgressBar() as bar:
        source = DumpSource(dump)
        source.check(bar)
        async with open_copier(settings, read_only=False) as copier:
            await restore_dump(source, copier, bar)
    return Restored(await asyncio.to_thread(find_schema_status, settings), aside=None)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
