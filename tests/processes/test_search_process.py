"""The process in which a server searches, of real servers."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import psutil
import pytest

from shared_context_server.services import search_process
from tests.cli.conftest import PATIENCE_S, Serve, ServerProcess
from tests.processes.test_load import call, http_of

SEARCHERS = 4


def list_children(server: ServerProcess) -> list[psutil.Process]:
    """The processes in which this server searches."""
    found = []
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if search_process.CHILD in child.cmdline():
                found.append(child)
    return found


async def search_until_there_is_a_process(server: ServerProcess) -> psutil.Process:
    async with http_of(server, "alice") as client:
        session_id = (await call(client, "create_session", purpose="p"))["session_id"]
        for number in range(10):
            content = f"a needle in haystack {number}"
            await call(client, "add_message", session_id=session_id, content=content)

        async def search() -> None:
            while not list_children(server):
                found = await call(
                    client, "search_context", session_id=session_id, query="neddle in haystack"
                )
                assert len(found["results"]) == 10

        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*[search() for _ in range(SEARCHERS)])
    (child,) = list_children(server)
    return child


@pytest.mark.parametrize("is_killed", [True, False])
async def test_much_searching_starts_a_process_that_ends_with_the_server(
    serve: Serve, is_killed: bool
) -> None:
    with serve() as server:
        child = await search_until_there_is_a_process(server)
        if is_killed:
            server.process.kill()
        else:
            server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(PATIENCE_S)
        assert is_killed or code == 0
        await asyncio.to_thread(child.wait, PATIENCE_S)
