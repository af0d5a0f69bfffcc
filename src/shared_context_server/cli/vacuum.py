"""The command `vacuum`: give the space of deleted data back to the file system."""

from __future__ import annotations

import asyncio
import sys

from shared_context_server.cli.banner import without_password
from shared_context_server.cli.hub.options import AsJson, Quiet
from shared_context_server.cli.options import StorageOptions
from shared_context_server.cli.progress import show_working
from shared_context_server.cli.show.values import print_json
from shared_context_server.storage import vacuum_storage


async def vacuum(
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Give the space of deleted data back, and print the bytes before and after. Servers can keep
    running.

    Servers on SQLite do this by themselves after large deletions; PostgreSQL does it always.
    """
    settings = options.load()
    with show_working("Vacuuming the database"):
        done = await asyncio.to_thread(vacuum_storage, settings)
    if as_json:
        print_json({"before": done.before, "after": done.after})
    if quiet or as_json:
        return
    print(
        f"{without_password(settings.storage_url)}: {done.before} bytes before, {done.after} after"
    )
    if done.remark:
        print(done.remark, file=sys.stderr)
