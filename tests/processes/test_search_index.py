"""The search index of real processes: killed while it is written, used by two of them, and written by
a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.search_index.progress import Progress, read_progress
from shared_context_server.services import index_process
from shared_context_server.settings import Settings
from shared_context_server.storage import open_storage
from tests.cli.conftest import PATIENCE_S, Serve, ServerProcess
from tests.processes.test_load import call, http_of
from tests.storage.builders import add_message, add_session
from tests.until import until

BATCH = 100


async def fill(client: httpx.AsyncClient, session_id: str, first: int) -> None:
    """Add a batch of messages, numbered from `first` on."""
    calls = [
        {
            "tool": "add_message",
            "arguments": {"session_id": session_id, "content": f"needle of number{number}x"},
        }
        for number in range(first, first + BATCH)
    ]
    answer = await client.post("/mcp/batch", json={"calls": calls})
    assert all(result["status"] == 200 for result in answer.json()["results"])


async def wait_for_progress(folder: IndexFolder, message_id: int) -> Progress:
    """Wait until the index covers the messages up to this one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            generation = folder.find_current()
            if generation is not None and (generation / "progress.json").exists():
                progress = read_progress(generation)
                if progress.changes.message_id >= message_id:
                    return progress
            await asyncio.sleep(0.01)


async def test_all_is_found_after_the_process_that_writes_was_killed(
    serve: Serve, tmp_path: Path
) -> None:
    parent = tmp_path / "data" / "search-index"
    url = f"sqlite:///{tmp_path / 'data' / 'shared_context.db'}"
    folder = IndexFolder(parent, url)
    with serve() as server:
        async with http_of(server, "alice") as client:
            session_id = (await call(client, "create_session", purpose="p"))["session_id"]
            await fill(client, session_id, 0)
            await wait_for_progress(folder, 1)
            for first in range(BATCH, 5 * BATCH, BATCH):
                await fill(client, session_id, first)
        server.process.kill()
        server.process.wait(PATIENCE_S)
    written = folder.find_current()
    with serve() as first, serve() as second:
        progress = await wait_for_progress(folder, 5 * BATCH)
        assert progress.is_complete
        assert folder.find_current() == written  # it is continued
        for server in (first, second):
            async with http_of(server, "bob") as client:
                for number in (0, 2 * BATCH, 5 * BATCH - 1):
                    found = await call(
                        client,
                        "search_context",
                        session_id=session_id,
                        query=f"neddle number{number}x",
                    )
                    content = found["results"][0]["message"]["content"]
                    assert content == f"needle of number{number}x"
                    assert (found["scanned"], found["exhaustive"]) == (5 * BATCH, True)


def find_helpers(server: ServerProcess) -> list[psutil.Process]:
    """The processes that write the index for this server."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(server.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if index_process.__name__ in child.cmdline():
                    found.append(child)
    return found


async def fill_store(data_dir: Path, first: int, count: int) -> None:
    async with open_storage(Settings(data_dir=data_dir)) as store:
        if first == 0:
            await add_session(store)
        await asyncio.gather(
            *(
                add_message(store, content=f"needle of number{number}x")
                for number in range(first, first + count)
            )
        )


async def test_a_process_of_its_own_writes_much_and_either_may_be_killed(
    serve: Serve, tmp_path: Path
) -> None:
    half = 2 * index_process.MUCH
    await fill_store(tmp_path / "data", 0, half)
    url = f"sqlite:///{tmp_path / 'data' / 'shared_context.db'}"
    folder = IndexFolder(tmp_path / "data" / "search-index", url)
    with serve() as first, serve() as second:
        await wait_for_progress(folder, half)
        dying = first if find_helpers(first) else second
        (staying,) = [server for server in (first, second) if server is not dying]
        (helper,) = find_helpers(dying)
        assert helper.nice() == index_process.NICENESS
        dying.process.kill()
        # It ends with its server, sooner than for want of work.
        async with asyncio.timeout(index_process.IDLE_S - 2):
            await until(lambda: not helper.is_running())
        # The other server goes on: with a process of its own, and if that is killed, without.
        count = 2 * half
        await fill_store(tmp_path / "data", half, half)
        await until(lambda: bool(find_helpers(staying)))
        for helper in find_helpers(staying):
            helper.kill()
        await wait_for_progress(folder, count)
        async with http_of(staying, "bob") as client:
            for number in (0, count // 2, count - 1):
                found = await call(
                    client,
                    "search_context",
                    session_id="session_1",
                    query=f"needle number{number}x",
                )
                content = found["results"][0]["message"]["content"]
                assert content == f"needle of number{number}x"
                assert (found["scanned"], found["exhaustive"]) == (count, True)


async def test_all_is_found_by_meaning_after_the_process_that_embeds_was_killed(
    serve: Serve, tmp_path: Path
) -> None:
    model = "python:tests.services.small_embedder:make_embedder"
    checkout = str(Path(__file__).parents[2])
    count = 1_500  # more than is embedded before a commit
    await fill_store(tmp_path / "data", 0, count)
    asked = {"session_id": "session_1", "query": f"number{count - 1}x", "mode": "semantic"}

    async def find(client: httpx.AsyncClient, is_enough: Callable[[dict[str, Any]], bool]) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            found = await call(client, "search_context", **asked)
            while not is_enough(found):
                await asyncio.sleep(0.01)
                found = await call(client, "search_context", **asked)
            return found

    with serve(SEMANTIC_MODEL=model, PYTHONPATH=checkout) as server:
        async with http_of(server, "bob") as client:
            begun = await find(client, lambda found: found["scanned"] > 0)
            assert not begun["exhaustive"]
        server.process.kill()
        server.process.wait(PATIENCE_S)
    with serve(SEMANTIC_MODEL=model, PYTHONPATH=checkout) as server:
        async with http_of(server, "bob") as client:
            found = await find(client, lambda found: found["exhaustive"])
            assert found["results"][0]["message"]["content"] == f"needle of number{count - 1}x"
            assert found["scanned"] == count
