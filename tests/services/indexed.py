"""Services whose search index follows the store when the test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared_context_server.models import Caller
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.server import open_server
from shared_context_server.services.candidates import Candidates
from shared_context_server.services.context import Services
from shared_context_server.services.indexer import Indexer
from shared_context_server.services.search import SearchAnswer, search_context
from shared_context_server.services.search_request import SearchRequest
from tests.settings import make_settings
from tests.storage.builders import BOB, add_message


@dataclass
class Indexed:
    """`root`: the directory of the index. Further processes are further objects on one root."""

    services: Services
    indexer: Indexer
    folder: IndexFolder
    root: Path

    async def catch_up(self) -> None:
        """Bring the index up to the store."""
        await self.indexer.catch_up()

    async def find(
        self,
        query: str,
        *,
        caller: Caller = BOB,
        session_id: str | None = "session_1",
        **fields: Any,
    ) -> SearchAnswer:
        asked = SearchRequest(session_id=session_id, query=query, fuzzy_threshold=60, limit=10)
        return await search_context(self.services, caller, replace(asked, **fields))

    async def fill(self, contents: list[str], session_id: str = "session_1", **fields: Any) -> None:
        for content in contents:
            await add_message(self.services.store, session_id, content=content, **fields)


@asynccontextmanager
async def open_indexed(data_dir: Path) -> AsyncIterator[Indexed]:
    """Open a server without a background indexer, and an index beside it."""
    async with (
        open_server(make_settings(data_dir, search_index=False)) as server,
        join_index(server.services, data_dir / "search-index") as indexed,
    ):
        yield indexed


@asynccontextmanager
async def join_index(services: Services, root: Path) -> AsyncIterator[Indexed]:
    """Use the index in this directory, as one more process would."""
    folder = IndexFolder(root, "store")
    candidates = Candidates(folder)
    indexer = Indexer(services.store, folder)
    try:
        yield Indexed(replace(services, candidates=candidates), indexer, folder, root)
    finally:
        indexer.begin_closing()
        await indexer.aclose()
        candidates.close()


def contents_of(answer: SearchAnswer) -> list[str]:
    return [hit.message.content for hit in answer.hits]
