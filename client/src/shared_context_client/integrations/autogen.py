"""AutoGen: the server's tools, and a session as an agent's memory. Needs the extra `autogen`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from autogen_core import CancellationToken
from autogen_core.memory import (
    Memory,
    MemoryContent,
    MemoryMimeType,
    MemoryQueryResult,
    UpdateContextResult,
)
from autogen_core.model_context import ChatCompletionContext
from autogen_core.models import SystemMessage
from autogen_core.tools import BaseTool
from pydantic import BaseModel

from shared_context_client._generated.results import MessageItem
from shared_context_client.client import SharedContextClient
from shared_context_client.integrations.toolset import acall_tool, arguments_model, select_tools
from shared_context_client.model_tool import ModelTool, text_of
from shared_context_client.session import Session

MIME_TYPE = "mime_type"  # in a message's metadata
LONGEST_QUERY_CHARS = 1000  # of search_context


class SharedContextTool(BaseTool[BaseModel, BaseModel]):
    """A tool for AutoGen. A refusal is raised as the client's error; AutoGen turns it into an error
    result that begins with the code."""

    def __init__(self, client: SharedContextClient, tool: ModelTool) -> None:
        super().__init__(arguments_model(tool), tool.result, tool.name, tool.description)
        self._client = client
        self._tool = tool

    async def run(self, args: BaseModel, cancellation_token: CancellationToken) -> BaseModel:
        call = asyncio.ensure_future(acall_tool(self._client, self._tool, args.model_dump()))
        cancellation_token.link_future(call)
        return await call

    def return_value_as_string(self, value: Any) -> str:
        return text_of(value)


def shared_context_tools(
    client: SharedContextClient, names: Iterable[str] | None = None
) -> list[BaseTool[BaseModel, BaseModel]]:
    """Make tools over a client, which you have to close; `names`: which ones, None: all."""
    return [SharedContextTool(client, tool) for tool in select_tools(names)]


class SharedContextMemory(Memory):
    """A session as memory: what one agent adds, all agents that may read the session recall.

    Before each turn of its agent the `limit` messages that match the last message best are put into
    the context; `fuzzy_threshold` as in search_context. It stores text and JSON.
    """

    def __init__(
        self, session: Session, *, limit: int = 10, fuzzy_threshold: float | None = None
    ) -> None:
        self._session = session
        self._options: dict[str, Any] = {"limit": limit, "fuzzy_threshold": fuzzy_threshold}

    async def update_context(self, model_context: ChatCompletionContext) -> UpdateContextResult:
        """Add what matches the last message to the context, oldest first."""
        messages = await model_context.get_messages()
        text = messages[-1].content if messages else ""
        found = await self.query(text) if isinstance(text, str) else MemoryQueryResult(results=[])
        if found.results:
            lines = [f"- {_text_of(memory)}" for memory in found.results]
            content = "\n".join(["From the shared session:", *lines])
            await model_context.add_message(SystemMessage(content=content))
        return UpdateContextResult(memories=found)

    async def query(
        self,
        query: str | MemoryContent,
        cancellation_token: CancellationToken | None = None,
        **kwargs: Any,
    ) -> MemoryQueryResult:
        """Return what matches, in the order it was added; `metadata` has `sender`, `seq` and
        `score`. Further arguments are those of Session.search. Raises SharedContextError."""
        text = query if isinstance(query, str) else _text_of(query)
        if not text.strip():
            return MemoryQueryResult(results=[])
        options = self._options | kwargs
        search = asyncio.ensure_future(self._session.search(text[:LONGEST_QUERY_CHARS], **options))
        if cancellation_token is not None:
            cancellation_token.link_future(search)
        found = sorted((await search).results, key=lambda result: result.message.seq)
        return MemoryQueryResult(
            results=[_memory_of(result.message, result.score) for result in found]
        )

    async def add(
        self, content: MemoryContent, cancellation_token: CancellationToken | None = None
    ) -> None:
        """Add a message. Raises TypeError for anything but text and JSON."""
        text = _text_of(content)
        mime_type = MemoryMimeType(content.mime_type).value
        metadata = {**(content.metadata or {}), MIME_TYPE: mime_type}
        adding = asyncio.ensure_future(self._session.add(text, metadata=metadata))
        if cancellation_token is not None:
            cancellation_token.link_future(adding)
        await adding

    async def clear(self) -> None:
        """Raise NotImplementedError: a session is a log that others read too."""
        raise NotImplementedError(
            "a session is a log and cannot be cleared: use a new one, or delete it"
        )

    async def close(self) -> None:
        """Do nothing: you have to close the client."""


def _text_of(memory: MemoryContent) -> str:
    if isinstance(memory.content, str):
        return memory.content
    if isinstance(memory.content, dict):
        return json.dumps(memory.content, ensure_ascii=False)
    raise TypeError(f"a session holds text and JSON, not {type(memory.content).__name__}")


def _memory_of(message: MessageItem, score: float) -> MemoryContent:
    metadata: dict[str, Any] = dict(message.metadata)
    content: Any = message.content
    mime_type = str(metadata.pop(MIME_TYPE, MemoryMimeType.TEXT.value))
    if mime_type == MemoryMimeType.JSON.value:
        with suppress(ValueError):  # any agent may write anything into a session
            content = json.loads(content)
    if not isinstance(content, str | dict):
        content = message.content
    return MemoryContent(
        content=content,
        mime_type=mime_type,
        metadata=metadata | {"sender": message.sender, "seq": message.seq, "score": score},
    )
