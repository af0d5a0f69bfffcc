"""The search index of real processes: killed while it is written, then used by two of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.search_index.progress import Progress, read_progress
from tests.cli.conftest import PATIENCE_S, Serve
from tests.processes.test_load import call, http_of

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
