"""What an indexer asks of others: of the writer of an index, and of a process that helps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from shared_context_server.models import MemoryAddress
from shared_context_server.search_index.progress import Progress


class Writer(Protocol):
    """The writer of an index: see search_index.writer."""

    progress: Progress
    pending: int

    def remove_memory(self, address: MemoryAddress) -> None: ...
    def remove_session(self, session_id: str) -> None: ...
    def remove_messages(self, ids: Sequence[int]) -> None: ...
    def commit(self, progress: Progress) -> None: ...
    def list_unerased(self, ids_from: int, ids_below: int) -> list[int] | None: ...
    def close(self) -> None: ...


class Helper(Protocol):
    """Another process that writes in place of this one: see services.index_process. `much`: how many
    messages make it worth starting. `much_to_erase`: how large an index to erase texts from does."""

    @property
    def much(self) -> int: ...
    @property
    def much_to_erase(self) -> int: ...
    @property
    def is_ready(self) -> bool: ...
    def run(self, release: Callable[[], None]) -> None: ...
    def stop(self) -> None: ...
