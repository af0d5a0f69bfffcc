"""CrewAI: the server's tools for agents and tasks. Needs the extra `crewai`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from crewai.tools import BaseTool
from crewai.tools.tool_failure import ToolFailure
from pydantic import PrivateAttr

from shared_context_client.errors import SharedContextError
from shared_context_client.integrations.toolset import arguments_model, call_tool, select_tools
from shared_context_client.model_tool import ModelTool, text_of
from shared_context_client.sync import SyncSharedContextClient


def never_cache(_arguments: Any = None, _result: Any = None) -> bool:
    """Return False: a crew with `cache=True` would keep answers and miss what others add."""
    return False


class SharedContextTool(BaseTool):
    """A tool for CrewAI. A refusal is a ToolFailure with the server's code, hint and details."""

    _client: SyncSharedContextClient = PrivateAttr()
    _tool: ModelTool = PrivateAttr()

    def __init__(self, client: SyncSharedContextClient, tool: ModelTool) -> None:
        super().__init__(
            name=tool.name,
            description=tool.description,
            # CrewAI makes all arguments required, so the optional ones have to accept null.
            args_schema=arguments_model(tool, takes_null=True),
            cache_function=never_cache,
        )
        self._client = client
        self._tool = tool

    def _run(self, **arguments: Any) -> Any:
        try:
            return text_of(call_tool(self._client, self._tool, arguments))
        except SharedContextError as exc:
            return ToolFailure(
                message=str(exc), code=exc.code, retryable=exc.retryable, details=exc.details
            )

    async def _arun(self, **arguments: Any) -> Any:
        return await asyncio.to_thread(self._run, **arguments)


def shared_context_tools(
    client: SyncSharedContextClient, names: Iterable[str] | None = None
) -> list[BaseTool]:
    """Make tools over a client, which you have to close; `names`: which ones, None: all."""
    return [SharedContextTool(client, tool) for tool in select_tools(names)]
