"""A process on the same store, for the tests in which the process is the subject.

    python peer.py TASK DATA_DIR

It prints a line for each thing that has happened, and takes a line for each thing to do.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from shared_context_server.events.bus import Bus
from shared_context_server.models import Event, EventKind
from shared_context_server.settings import Settings
from shared_context_server.storage import Store
from tests.events.conftest import open_linked
from tests.events.news import next_events, wait_for_resync
from tests.storage.builders import add_message


def say(*words: object) -> None:
    print(*words, flush=True)


async def next_line() -> str:
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def wait_for_news(store: Store, bus: Bus) -> None:
    """Prints the kind and seq of each event heard, for ever."""
    with bus.subscribe(lambda event: True) as subscription:
        await wait_for_resync(subscription)
        say("listening")
        while True:
            for event in await next_events(subscription):
                say(event.kind.value, event.seq)


async def write(store: Store, bus: Bus) -> None:
    """Adds a message for each line, and announces it as the services do, unless it says `quietly`."""
    say("ready")
    while line := await next_line():
        added = await add_message(store, content=line)
        if line != "quietly":
            bus.publish(Event(EventKind.MESSAGE_ADDED, "session_1", seq=added.seq))
        say("added", added.seq)


async def main(task: str, data_dir: str) -> None:
    settings = Settings(data_dir=Path(data_dir), database_url=None)
    async with open_linked(settings) as (store, bus):
        await {"wait_for_news": wait_for_news, "write": write}[task](store, bus)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
