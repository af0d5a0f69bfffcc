"""LangGraph: the server's memory as the store of agents and graphs. Needs the extra `langchain`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Literal
from urllib.parse import quote, unquote

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from shared_context_client._generated.errors import MemoryNotFound
from shared_context_client._generated.results import MemoryValue
from shared_context_client.sync import SyncSharedContextClient

Path = tuple[tuple[str, ...], str]
PAGE_KEYS = 1000


class SharedContextStore(BaseStore):
    """A store for LangGraph. What one agent puts, all agents of the server get; with `session_id`,
    those who may read the session; with scope="private", only this one.

    Namespace and key form one key of the server: joined with `/`, reserved characters escaped as in
    a URL, at most 255 characters. A search reads everything under the prefix; `query` is ignored,
    as in LangGraph's own store without an index. There is no TTL. Values that are not JSON objects
    are ignored.
    """

    __slots__ = ("_client", "_scope", "_session_id")

    def __init__(
        self,
        client: SyncSharedContextClient,
        *,
        session_id: str | None = None,
        scope: Literal["private", "shared"] = "shared",
    ) -> None:
        self._client = client
        self._session_id = session_id
        self._scope = scope

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run the operations in order. Raises SharedContextError at the first that fails."""
        return [self._run(op) for op in ops]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """See batch."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _run(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            return self._get(op)
        if isinstance(op, PutOp):
            self._put(op)
            return None
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return self._list_namespaces(op)
        raise TypeError(f"{op!r} is not an operation of a LangGraph store")

    def _get(self, op: GetOp) -> Item | None:
        key = _key_of((op.namespace, op.key))
        try:
            found = self._client.get_memory(key, session_id=self._session_id, scope=self._scope)
        except MemoryNotFound:
            return None
        if not isinstance(found.value, dict):
            return None
        return Item(
            value=found.value,
            key=op.key,
            namespace=op.namespace,
            created_at=found.created_at,
            updated_at=found.updated_at,
        )

    def _put(self, op: PutOp) -> None:
        key = _key_of((op.namespace, op.key))
        if op.value is not None:
            self._client.set_memory(
                key, dict(op.value), session_id=self._session_id, scope=self._scope
            )
            return
        with suppress(MemoryNotFound):
            self._client.delete_memory(key, session_id=self._session_id, scope=self._scope)

    def _search(self, op: SearchOp) -> list[SearchItem]:
        found = self._read(op.namespace_prefix)
        # LangGraph's own store defines what filters mean.
        matching = InMemoryStore()
        for (namespace, key), memory in found.items():
            if isinstance(memory.value, dict):
                matching.put(namespace, key, memory.value)
        items = matching.search(
            op.namespace_prefix, filter=op.filter, limit=op.limit, offset=op.offset
        )
        for item in items:
            memory = found[item.namespace, item.key]
            item.created_at, item.updated_at = memory.created_at, memory.updated_at
        return items

    def _list_namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        matching = InMemoryStore()
        for namespace, key in self._list(()):
            matching.put(namespace, key, {})
        (namespaces,) = matching.batch([op])
        return namespaces  # type: ignore[return-value]

    def _read(self, prefix: tuple[str, ...]) -> dict[Path, MemoryValue]:
        """Return what is under a prefix, without what is deleted meanwhile."""
        paths = list(self._list(prefix))
        with self._client.batch() as batch:
            items = [
                batch.get_memory(_key_of(path), session_id=self._session_id, scope=self._scope)
                for path in paths
            ]
        found = {}
        for path, item in zip(paths, items, strict=True):
            with suppress(MemoryNotFound):
                found[path] = item.result
        return found

    def _list(self, prefix: tuple[str, ...]) -> Iterator[Path]:
        text = "".join(f"{quote(label, safe='')}/" for label in prefix)
        cursor = None
        while True:
            page = self._client.list_memory(
                session_id=self._session_id,
                scope=self._scope,
                prefix=text or None,
                limit=PAGE_KEYS,
                cursor=cursor,
            )
            for entry in page.entries:
                *namespace, key = map(unquote, entry.key.split("/"))
                if namespace:  # others may keep memory here that is not a store's
                    yield tuple(namespace), key
            if (cursor := page.next_cursor) is None:
                return


def _key_of(path: Path) -> str:
    namespace, key = path
    return "/".join(quote(part, safe="") for part in (*namespace, key))
