"""Make the documents of the search index from messages and memory entries."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from pydantic import JsonValue

from shared_context_server.models import MemoryEntry, Message, Session
from shared_context_server.search_index.audience import memory_audience, message_audience
from shared_context_server.search_index.documents import Document, Kind
from shared_context_server.services.terms import analyse_text, index_terms
from shared_context_server.storage.codec import encode_time


def to_message_document(message: Message, session: Session) -> Document:
    content = analyse_text(message.content)
    return Document(
        kind=Kind.MESSAGE,
        number=message.id,
        session_id=message.session_id,
        audience=message_audience(message, session),
        sender=message.sender,
        visibility=message.visibility,
        time_us=encode_time(message.timestamp),
        terms=content.terms,
        order=content.order,
        metadata_terms=index_terms(join_texts(message.metadata)) if message.metadata else (),
    )


def to_memory_document(entry: MemoryEntry, session: Session | None) -> Document:
    content = analyse_text(memory_text(entry))
    return Document(
        kind=Kind.MEMORY,
        number=0,
        session_id=entry.address.session_id,
        audience=memory_audience(entry, session),
        sender=entry.updated_by,
        visibility="",
        time_us=encode_time(entry.updated_at),
        terms=content.terms,
        order=content.order,
        metadata_terms=index_terms(join_texts(entry.metadata)) if entry.metadata else (),
        address=entry.address,
    )


def memory_text(entry: MemoryEntry) -> str:
    """Return what is searched of an entry: its key and the texts of its value."""
    return f"{entry.address.key}: {join_texts(entry.value)}"


def join_texts(value: JsonValue) -> str:
    return " ".join(leaf_texts(value))


def leaf_texts(value: JsonValue) -> Iterator[str]:
    """Return the texts and numbers of a JSON value in document order, with the object keys."""
    around: list[Iterator[JsonValue]] = [iter((value,))]
    while around:
        for part in around[-1]:
            if isinstance(part, dict):
                around.append(chain.from_iterable(part.items()))
                break
            if isinstance(part, list):
                around.append(iter(part))
                break
            if isinstance(part, str):
                yield part
            elif part is not None and not isinstance(part, bool):
                yield str(part)
        else:
            around.pop()
