"""CrewAI: the server's memory as the storage of a crew's memory. Needs the extra `crewai`."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from operator import mul
from threading import Lock
from typing import Any, Literal

from crewai.memory.storage.backend import EmbeddingDimensionMismatchError
from crewai.memory.types import MemoryRecord, ScopeInfo
from pydantic import ValidationError

from shared_context_client._generated.errors import MemoryNotFound
from shared_context_client.sync import SyncSharedContextClient

PAGE_KEYS = 1000

Records = dict[str, MemoryRecord]


class SharedContextStorage:
    """A storage for `Memory(storage=…)`. Crews in several processes, on several machines, share
    what they remember; with `session_id`, among those who may read the session; with
    scope="private", for this agent only.

    A record is a value whose key is `prefix` and its id; the embedding is part of it. All records
    are cached here: before each use versions are compared, and changed records are read again. A
    search compares the query with each record, so it is meant for thousands of records, not for
    millions. A record's `private` has a meaning for CrewAI only: the server shows it to all who may
    read. Values that are not records are ignored.
    """

    def __init__(
        self,
        client: SyncSharedContextClient,
        *,
        session_id: str | None = None,
        scope: Literal["private", "shared"] = "shared",
        prefix: str = "crewai/",
    ) -> None:
        self._client = client
        self._place: dict[str, Any] = {"session_id": session_id, "scope": scope}
        self._prefix = prefix
        self._known: dict[str, tuple[int, MemoryRecord]] = {}
        self._reading = Lock()

    def save(self, records: list[MemoryRecord]) -> None:
        """Add or replace records. Raises SharedContextError at the first that is refused."""
        with self._client.batch() as batch:
            saved = [
                batch.set_memory(self._prefix + record.id, _value_of(record), **self._place)
                for record in records
            ]
        for item in saved:
            _ = item.result

    def update(self, record: MemoryRecord) -> None:
        """Replace the record of this id."""
        self.save([record])

    def touch_records(self, record_ids: list[str]) -> None:
        """Note that records were recalled. Records that others change or delete meanwhile are
        skipped."""
        now = datetime.now(UTC).replace(tzinfo=None).isoformat()  # CrewAI's times are naive UTC
        known = [(one, self._known[one][0]) for one in record_ids if one in self._known]
        with self._client.batch() as batch:
            for record_id, version in known:
                batch.set_memory(
                    self._prefix + record_id,
                    {"last_accessed": now},
                    mode="merge",
                    expected_version=version,
                    **self._place,
                )

    def get_record(self, record_id: str) -> MemoryRecord | None:
        return self._read().get(record_id)

    def search(
        self,
        query_embedding: list[float],
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        min_score: float = 0.0,
    ) -> list[tuple[MemoryRecord, float]]:
        """Return the most similar records, by cosine similarity; negative ones count as 0. Raises
        EmbeddingDimensionMismatchError."""
        found = self._select(scope_prefix, categories, metadata_filter)
        scored = [
            (record, _similarity(record.embedding, query_embedding))
            for record in found
            if record.embedding
        ]
        scored.sort(key=lambda pair: pair[1], reverse=True)
        return [pair for pair in scored if pair[1] >= min_score][:limit]

    def delete(
        self,
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        record_ids: list[str] | None = None,
        older_than: datetime | None = None,
        metadata_filter: dict[str, Any] | None = None,
    ) -> int:
        """Delete the records for which all conditions hold; return their number."""
        found = self._select(scope_prefix, categories, metadata_filter)
        chosen = [
            record
            for record in found
            if (not record_ids or record.id in record_ids)
            and (older_than is None or _aware(record.created_at) < _aware(older_than))
        ]
        with self._client.batch() as batch:
            items = [
                batch.delete_memory(self._prefix + record.id, **self._place) for record in chosen
            ]
        return sum(item.error is None for item in items)

    def list_records(
        self, scope_prefix: str | None = None, limit: int = 200, offset: int = 0
    ) -> list[MemoryRecord]:
        """Return records, newest first."""
        found = self._select(scope_prefix)
        found.sort(key=lambda record: _aware(record.created_at), reverse=True)
        return found[offset : offset + limit]

    def get_scope_info(self, scope: str) -> ScopeInfo:
        found = self._select(scope)
        created = sorted((record.created_at for record in found), key=_aware)
        return ScopeInfo(
            path=_path(scope) or "/",
            record_count=len(found),
            categories=sorted({category for record in found for category in record.categories}),
            oldest_record=created[0] if created else None,
            newest_record=created[-1] if created else None,
            child_scopes=_children(scope, found),
        )

    def list_scopes(self, parent: str = "/") -> list[str]:
        return _children(parent, self._select(parent))

    def list_categories(self, scope_prefix: str | None = None) -> dict[str, int]:
        found = self._select(scope_prefix)
        return dict(Counter(category for record in found for category in record.categories))

    def count(self, scope_prefix: str | None = None) -> int:
        return len(self._select(scope_prefix))

    def reset(self, scope_prefix: str | None = None) -> None:
        """Delete all records in the scope, for everybody."""
        self.delete(scope_prefix)

    async def asave(self, records: list[MemoryRecord]) -> None:
        await asyncio.to_thread(self.save, records)

    async def asearch(self, query_embedding: list[float], *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self.search, query_embedding, *args, **kwargs)

    async def adelete(self, *args: Any, **kwargs: Any) -> int:
        return await asyncio.to_thread(self.delete, *args, **kwargs)

    def _select(
        self,
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
    ) -> list[MemoryRecord]:
        is_below = _is_below(scope_prefix)
        wanted = (metadata_filter or {}).items()
        return [
            record
            for record in self._read().values()
            if is_below(record.scope)
            and (not categories or not set(categories).isdisjoint(record.categories))
            and all(record.metadata.get(name) == value for name, value in wanted)
        ]

    def _read(self) -> Records:
        """Return all current records by id, without those deleted meanwhile."""
        with self._reading:
            versions = self._list_versions()
            known = {key: kept for key, kept in self._known.items() if key in versions}
            changed = [
                key for key, version in versions.items() if known.get(key, (0,))[0] != version
            ]
            with self._client.batch() as batch:
                items = [batch.get_memory(self._prefix + key, **self._place) for key in changed]
            for key, item in zip(changed, items, strict=True):
                known.pop(key, None)
                with suppress(MemoryNotFound, ValidationError):  # any agent may put anything there
                    known[key] = (item.result.version, _record_of(item.result.value))
            self._known = known
            return {key: record for key, (_, record) in known.items()}

    def _list_versions(self) -> dict[str, int]:
        versions: dict[str, int] = {}
        cursor: str | None = None
        while True:
            page = self._client.list_memory(
                prefix=self._prefix, limit=PAGE_KEYS, cursor=cursor, **self._place
            )
            versions |= {
                entry.key.removeprefix(self._prefix): entry.version for entry in page.entries
            }
            if (cursor := page.next_cursor) is None:
                return versions


def _value_of(record: MemoryRecord) -> dict[str, Any]:
    # The model's dump leaves out the embedding.
    return {**record.model_dump(mode="json"), "embedding": record.embedding}


def _record_of(value: Any) -> MemoryRecord:
    return MemoryRecord.model_validate(value)


def _similarity(ours: list[float] | None, query: list[float]) -> float:
    if ours is None or len(ours) != len(query):
        raise EmbeddingDimensionMismatchError(len(ours or ()), len(query))
    lengths = math.hypot(*ours) * math.hypot(*query)
    return max(0.0, sum(map(mul, ours, query)) / lengths) if lengths else 0.0


def _path(scope: str | None) -> str:
    """Return the scope without the slash at its end; the root is empty."""
    inner = (scope or "").strip("/")
    return f"/{inner}" if inner else ""


def _is_below(scope_prefix: str | None) -> Callable[[str], bool]:
    """Return a predicate: whether a scope is this one or within it."""
    prefix = _path(scope_prefix)
    return lambda scope: f"{_path(scope)}/".startswith(f"{prefix}/")


def _children(parent: str, records: Iterable[MemoryRecord]) -> list[str]:
    prefix = f"{_path(parent)}/"
    inner = {f"{_path(record.scope)}/".removeprefix(prefix) for record in records}
    return sorted({prefix + path.split("/")[0] for path in inner if path})


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
