"""The list of all tools."""

from __future__ import annotations

from typing import Any

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings, ToolSet
from shared_context_server.tools import (
    acknowledgements,
    agents,
    clock,
    identity,
    leases,
    memory,
    messages,
    sessions,
    tasks,
)
from shared_context_server.tools.registry import Tool

TOOLS: tuple[Tool[Any, Any], ...] = (
    *identity.TOOLS,
    *sessions.TOOLS,
    *messages.TOOLS,
    *acknowledgements.TOOLS,
    *memory.TOOLS,
    *leases.TOOLS,
    *tasks.TOOLS,
    *agents.TOOLS,
    *clock.TOOLS,
)


def served_tools(tool_set: ToolSet) -> tuple[Tool[Any, Any], ...]:
    """Return the tools that the setting TOOLS selects."""
    return tuple(tool for tool in TOOLS if tool_set is ToolSet.ALL or tool.is_core)


def require_known_tools(settings: Settings) -> None:
    """Raise ConfigurationError if RATE_LIMIT_TOOLS names a tool that does not exist."""
    known = {tool.name for tool in TOOLS}
    for name in settings.tool_rates:
        if name not in known:
            raise ConfigurationError(f"RATE_LIMIT_TOOLS: there is no tool {name!r}.")
