"""The names that users of the embedding import."""

from __future__ import annotations

import importlib.util

import pytest

from shared_context_server import embed
from shared_context_server.errors import ConfigurationError


def test_the_public_names_stay() -> None:
    assert embed.__all__ == [
        "ControlRouter",
        "McpServerAdapter",
        "SdkServerEntry",
        "ToolTiming",
        "ToolTimings",
        "agent_options",
        "create_clock_server",
        "create_sdk_server",
        "servers_for_cli",
        "tool_server",
        "tool_timings",
    ]
    assert all(hasattr(embed, name) for name in embed.__all__)


@pytest.mark.skipif(
    importlib.util.find_spec("claude_agent_sdk") is not None, reason="the extra is installed"
)
def test_without_the_extra_its_name_is_in_the_error() -> None:
    with pytest.raises(ConfigurationError, match=r"CHECKOUT\[agent\]"):
        embed.agent_options(agent_id="alice")
