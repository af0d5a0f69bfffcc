"""Embeds the server, the clock or your own functions in your process, without sockets."""

from shared_context_server.embed.adapter import McpServerAdapter
from shared_context_server.embed.agent import agent_options, tool_timings
from shared_context_server.embed.call_durations import ToolTiming, ToolTimings
from shared_context_server.embed.clock_server import create_clock_server
from shared_context_server.embed.control import ControlRouter, servers_for_cli
from shared_context_server.embed.entry import SdkServerEntry
from shared_context_server.embed.functions import tool_server
from shared_context_server.embed.sdk_server import create_sdk_server

__all__ = [
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
