"""Look up what is near in meaning, in a thread beside the event loop.

The model is loaded in the thread when it is first needed: by the first semantic search of a process,
and by the indexer of the process that writes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from shared_context_server.errors import ConfigurationError, InvalidArgument, Unavailable
from shared_context_server.observability.logs import get_logger
from shared_context_server.search_index.errors import IndexUnusable
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.search_index.queries import Scope
from shared_context_server.services.search_request import SearchMode
from shared_context_server.vector_index.embedders import (
    EXTRA,
    Embedder,
    EmbedderFailed,
    check_model,
    is_installed,
    load_embedder,
)

if TYPE_CHECKING:
    from shared_context_server.vector_index.reader import Nearest, VectorReader

COMPLAIN_EVERY_S = 60.0

_log = get_logger("vector_index")


class Vectors:
    """The index of vectors as searches use it. None: semantic search is not switched on. Raises
    ConfigurationError if it is, and cannot be."""

    def __init__(self, folder: IndexFolder | None = None, model: str | None = None) -> None:
        if model is not None:
            check_model(model)
        self.folder = folder
        self._model = model
        self._embedder: Embedder | None = None
        self._loading = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vector-index")
        self._reader: VectorReader | None = None
        self._complained_at = -COMPLAIN_EVERY_S

    @property
    def is_on(self) -> bool:
        return self.folder is not None and self._model is not None

    def require(self, mode: SearchMode) -> None:
        """Raise InvalidArgument if this server cannot search in this mode."""
        if mode is SearchMode.FUZZY or self.is_on:
            return
        if not is_installed():
            raise InvalidArgument(
                f"mode {mode.value!r} needs the extra {EXTRA!r}, which this server does not have.",
                field="mode",
                suggestion="Search with mode='fuzzy', or ask whoever runs the server for the extra.",
                extra=EXTRA,
            )
        raise InvalidArgument(
            f"mode {mode.value!r} is not switched on: this server has no SEMANTIC_MODEL.",
            field="mode",
            suggestion="Search with mode='fuzzy', or ask whoever runs the server to set it.",
            setting="SEMANTIC_MODEL",
        )

    def load_embedder(self) -> Embedder:
        """Return the model, loaded at the first call. Raises ConfigurationError."""
        assert self._model is not None
        with self._loading:
            if self._embedder is None:
                self._embedder = load_embedder(self._model)
            return self._embedder

    async def look_up(self, query: str, scope: Scope, counted: Scope, limit: int) -> Nearest | None:
        """Return the nearest of `scope`, and the number of documents of `counted`. None if there is
        no index yet, or if it is damaged, which is reported to the process that writes it. Raises
        Unavailable if the model cannot be loaded or fails."""
        assert self.folder is not None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._thread, self._find, query, scope, counted, limit
            )
        except ConfigurationError as exc:
            self._complain("the model of SEMANTIC_MODEL cannot be loaded", exc)
            raise Unavailable("The model of semantic search cannot be loaded.") from exc
        except EmbedderFailed as exc:
            self._complain("the model of SEMANTIC_MODEL failed", exc)
            raise Unavailable("The model of semantic search failed.") from exc
        except (IndexUnusable, OSError) as exc:
            self.folder.report_damage()
            self._complain("the index of vectors cannot be read", exc)
            return None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _find(self, query: str, scope: Scope, counted: Scope, limit: int) -> Nearest | None:
        assert self.folder is not None
        if self._reader is None:
            embedder = self.load_embedder()
            from shared_context_server.vector_index.reader import (  # noqa: PLC0415 - an extra
                VectorReader,
            )

            self._reader = VectorReader(self.folder, embedder)
        return self._reader.find(query, scope, counted, limit)

    def _complain(self, what: str, exc: Exception) -> None:
        if time.monotonic() - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = time.monotonic()
            _log.warning(what, error=str(exc))
