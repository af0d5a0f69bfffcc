"""A process that uses a store, for the tests in which the process is the subject.

    python worker.py TASK DATA_DIR [ARGUMENT…]

It prints a line for each thing that was acknowledged, as soon as it was.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from shared_context_server.errors import Unavailable
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from tests.storage.builders import add_message, add_session, make_caller

PARALLEL = 20


async def add_messages(store: Store, name: str, count: str) -> None:
    """As many, from several tasks; prints content and seq. For ever if count is 0."""
    numbers = iter(range(int(count))) if int(count) else itertools.count()

    async def work() -> None:
        for number in numbers:
            content = f"{name}-{number}"
            added = await add_message(store, content=content, sender=make_caller(name))
            print(content, added.seq, flush=True)

    await asyncio.gather(*(work() for _ in range(PARALLEL)))


async def start(store: Store, name: str) -> None:
    """The first use of a data directory."""
    await add_session(store, name)
    print(name, flush=True)


async def run_out_of_space(store: Store) -> None:
    """Writes until the process may write no more, then is given room again."""
    soft = 512 * 1024  # bytes a file; more than an empty database, less than what follows
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for number in itertools.count():
        try:
            await add_message(store, content=f"{number} " + "x" * 10_000)
        except Unavailable:
            break
        print("written", number, flush=True)
    print("refused", flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    added = await add_message(store, content="after")
    print("after", added.seq, flush=True)


TASKS: dict[str, Callable[..., Awaitable[None]]] = {
    "add_messages": add_messages,
    "start": start,
    "run_out_of_space": run_out_of_space,
}


async def abandon(store: Store) -> None:
    """Uses reader and writer; main leaves both open."""
    await add_message(store)
    await store.sessions.get("session_1")
    print("leaving", flush=True)


async def run_task(task: str, settings: Settings, *arguments: str) -> None:
    async with open_storage(settings) as store:
        await TASKS[task](store, *arguments)


def main(task: str, data_dir: str, *arguments: str) -> None:
    settings = Settings(data_dir=Path(data_dir), database_url=None)
    if task != "abandon":
        asyncio.run(run_task(task, settings, *arguments))
        return
    opening = open_storage(settings)
    loop = asyncio.new_event_loop()  # unlike asyncio.run it closes nothing
    store = loop.run_until_complete(opening.__aenter__())
    loop.run_until_complete(abandon(store))
    sys.exit()  # while `opening` and `loop` are still there


if __name__ == "__main__":
    main(*sys.argv[1:])
