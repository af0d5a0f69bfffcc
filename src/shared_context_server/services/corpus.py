"""What this process knows of sessions' texts, for search: extended by seq, since messages never change."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator

from pydantic import JsonValue

from shared_context_server.models import Message, Visibility
from shared_context_server.services.scoring import TextIndex
from shared_context_server.storage import Storage
from shared_context_server.storage.base import SessionGuard

READ_STEP = 2_000
MAX_CACHED_CHARS = 32_000_000  # about 100 MB with its index, over all sessions of a process


class Corpus:
    """A session's messages up to `last_seq`, whoever may see them, with their texts indexed."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.contents = TextIndex()
        self.metadata = TextIndex()
        self.hidden: list[int] = []
        self.lock = asyncio.Lock()

    @property
    def last_seq(self) -> int:
        return self.messages[-1].seq if self.messages else 0

    @property
    def size_chars(self) -> int:
        return self.contents.size_chars + self.metadata.size_chars

    def extend(self, messages: list[Message]) -> None:
        for message in messages:
            if message.visibility is not Visibility.PUBLIC:
                self.hidden.append(len(self.messages))
            self.messages.append(message)
            self.contents.add(message.content)
            self.metadata.add(" ".join(leaf_texts(message.metadata)))


class CorpusCache:
    """The corpora of the sessions searched last, within MAX_CACHED_CHARS altogether."""

    def __init__(self, storage: Storage, max_chars: int = MAX_CACHED_CHARS) -> None:
        self._storage = storage
        self._max_chars = max_chars
        self._corpora: OrderedDict[str, Corpus] = OrderedDict()

    async def get(self, session_id: str, guard: SessionGuard) -> Corpus:
        """The session's corpus with every message acknowledged before the call.

        Raises what the guard raises, on each call; a corpus is never given without asking.
        """
        while True:
            corpus = self._corpora.get(session_id)
            if corpus is None:
                corpus = self._corpora[session_id] = Corpus()
            self._corpora.move_to_end(session_id)
            try:
                async with corpus.lock:
                    is_continued = await self._extend(session_id, corpus, guard)
            except BaseException:
                if not corpus.messages:
                    self._corpora.pop(session_id, None)
                raise
            if is_continued:
                self._evict(keep=session_id)
                return corpus
            if self._corpora.get(session_id) is corpus:
                del self._corpora[session_id]

    def forget(self, session_id: str) -> None:
        """Drop what is known of a deleted session."""
        self._corpora.pop(session_id, None)

    async def _extend(self, session_id: str, corpus: Corpus, guard: SessionGuard) -> bool:
        """False, and the corpus is of no use any more, if the log does not go on from it: the last
        message it has is read once more, by which a store that was set back is known."""
        while True:
            known = corpus.messages[-1:]
            after_seq = corpus.last_seq - len(known)
            messages = await self._storage.read_log(
                session_id, after_seq=after_seq, limit=READ_STEP, guard=guard
            )
            if messages[: len(known)] != known:
                return False
            corpus.extend(messages[len(known) :])
            if len(messages) < READ_STEP:
                return True

    def _evict(self, keep: str) -> None:
        total = sum(corpus.size_chars for corpus in self._corpora.values())
        for session_id in list(self._corpora):
            if total <= self._max_chars or session_id == keep:
                return
            total -= self._corpora.pop(session_id).size_chars


def leaf_texts(value: JsonValue) -> Iterator[str]:
    """The texts and numbers of a JSON value in document order, object keys too."""
    match value:
        case dict():
            for name, member in value.items():
                yield name
                yield from leaf_texts(member)
        case list():
            for element in value:
                yield from leaf_texts(element)
        case str():
            yield value
        case bool() | None:
            return
        case _:
            yield str(value)
