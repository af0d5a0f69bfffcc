"""LangChain: the server's tools for agents and chains. Needs the extra `langchain`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.tools import StructuredTool, ToolException

from shared_context_client.client import SharedContextClient
from shared_context_client.errors import SharedContextError
from shared_context_client.integrations.toolset import acall_tool, call_tool, select_tools
from shared_context_client.model_tool import ModelTool, text_of
from shared_context_client.sync import SyncSharedContextClient
from shared_context_client.wire import Record


def shared_context_tools(
    client: SharedContextClient | SyncSharedContextClient, names: Iterable[str] | None = None
) -> list[StructuredTool]:
    """Make tools over a client, which you have to close; `names`: which ones, None: all.

    With a sync client the tools can be invoked both ways, with an async one by `ainvoke` on its
    loop. The content of a tool message is JSON, its artifact the typed result. A refusal is a
    message of status "error" that begins with the code. To get an exception, set `handle_tool_error
    = False` on the tool: it is a ToolException caused by the client's error.
    """
    make = _blocking_tool if isinstance(client, SyncSharedContextClient) else _async_tool
    return [make(client, tool) for tool in select_tools(names)]  # type: ignore[arg-type]


def _blocking_tool(client: SyncSharedContextClient, tool: ModelTool) -> StructuredTool:
    def run(**arguments: Any) -> tuple[str, Record]:
        try:
            answer = call_tool(client, tool, arguments)
        except SharedContextError as exc:
            raise ToolException(str(exc)) from exc
        return text_of(answer), answer

    return _structured_tool(tool, func=run)


def _async_tool(client: SharedContextClient, tool: ModelTool) -> StructuredTool:
    async def run(**arguments: Any) -> tuple[str, Record]:
        try:
            answer = await acall_tool(client, tool, arguments)
        except SharedContextError as exc:
            raise ToolException(str(exc)) from exc
        return text_of(answer), answer

    return _structured_tool(tool, coroutine=run)


def _structured_tool(tool: ModelTool, **run: Any) -> StructuredTool:
    return StructuredTool(
        name=tool.name,
        description=tool.description,
        args_schema=tool.schema,
        response_format="content_and_artifact",
        handle_tool_error=True,
        **run,
    )
