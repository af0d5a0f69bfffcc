"""Makes options for an agent of the Claude Agent SDK with the server embedded (extra `agent`)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_context_server.embed.call_durations import ToolTimings
from shared_context_server.embed.sdk_server import READ_WRITE, create_sdk_server, make_agent
from shared_context_server.environment import EnvironmentOwner
from shared_context_server.errors import ConfigurationError
from shared_context_server.models import Permission
from shared_context_server.settings import load_settings
from shared_context_server.tools.catalog import served_tools

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions

# A tool's full name is `mcp__{key}__{tool}`. A key must not make it ambiguous.
_KEY = re.compile(r"[A-Za-z0-9-]+(?:_[A-Za-z0-9-]+)*")
_ENDS = ("PostToolUse", "PostToolUseFailure")


def agent_options(
    key: str = "shared_context",
    *,
    agent_id: str,
    agent_type: str = "claude",
    permissions: Collection[str] = READ_WRITE,
    data_dir: str | os.PathLike[str] | None = None,
    database_url: str | None = None,
    timing: bool | ToolTimings = False,
    **options: Any,
) -> ClaudeAgentOptions:
    """ClaudeAgentOptions for an agent with the whole server in its process, under `key`.

    The tools that the permissions allow are in `allowed_tools` as `mcp__{key}__{tool}`. `options` are
    those of ClaudeAgentOptions; mcp_servers, allowed_tools and hooks are extended. `timing`: True or
    a record of yours measures every tool call; `tool_timings` returns the record. Raises
    ConfigurationError, also if the extra `agent` is missing or the key is already used.
    """
    sdk = _import_sdk()
    if not _KEY.fullmatch(key):
        raise ConfigurationError("key: must be letters, digits, '-' and single '_'.")
    servers = _read_servers(options.pop("mcp_servers", None) or {})
    if key in servers:
        raise ConfigurationError(f"mcp_servers already has an entry {key!r}. Pass another key.")
    entry = create_sdk_server(
        key,
        agent_id=agent_id,
        agent_type=agent_type,
        permissions=permissions,
        data_dir=data_dir,
        database_url=database_url,
    )
    granted = make_agent(agent_id, agent_type, permissions).permissions
    allowed = [*(options.pop("allowed_tools", None) or ()), *list_allowed_tools(key, granted)]
    hooks = dict(options.pop("hooks", None) or {})
    if timing:
        record = timing if isinstance(timing, ToolTimings) else ToolTimings()
        hooks = _add_timing(hooks, record, sdk.HookMatcher)
    made: ClaudeAgentOptions = sdk.ClaudeAgentOptions(
        mcp_servers={**servers, key: entry},
        allowed_tools=list(dict.fromkeys(allowed)),
        hooks=hooks or None,
        **options,
    )
    return made


def list_allowed_tools(key: str, permissions: Collection[Permission]) -> list[str]:
    """The full names of the tools that these permissions allow."""
    return [
        f"mcp__{key}__{tool.name}"
        for tool in served_tools(load_settings(EnvironmentOwner.PROJECT).tools)
        if tool.permission is None
        or tool.permission in permissions
        or Permission.ADMIN in permissions
    ]


def tool_timings(options: ClaudeAgentOptions) -> ToolTimings:
    """The record behind `agent_options(…, timing=True)`. Raises LookupError if there is none."""
    for matcher in (options.hooks or {}).get("PreToolUse", ()):
        for hook in matcher.hooks:
            record = getattr(hook, "__self__", None)
            if isinstance(record, ToolTimings):
                return record
    raise LookupError("These options have no timings. Make them with timing=True.")


def _add_timing(
    hooks: Mapping[str, list[Any]], record: ToolTimings, matcher: Any
) -> dict[str, list[Any]]:
    # The order does not matter: hooks of one event run at the same time.
    added = {"PreToolUse": record.before, **dict.fromkeys(_ENDS, record.after)}
    timed = {event: [*hooks.get(event, ()), matcher(hooks=[hook])] for event, hook in added.items()}
    return {**hooks, **timed}


def _read_servers(servers: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """The user's own servers: a dict, JSON text, or the path of a JSON file, as the SDK takes them."""
    if isinstance(servers, Mapping):
        return dict(servers)
    text = os.fspath(servers)
    try:
        if not text.lstrip().startswith("{"):
            text = Path(text).read_text(encoding="utf-8")
        return dict(json.loads(text)["mcpServers"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigurationError("mcp_servers is neither a dict nor an MCP config.") from exc


def _import_sdk() -> Any:
    try:
        import claude_agent_sdk  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise ConfigurationError(
            "agent_options needs the Claude Agent SDK: pip install claude-agent-sdk, or install the "
            "server with its extra: pip install 'CHECKOUT[agent]' or 'WHEEL[agent]', with the path of "
            "the checkout or the wheel."
        ) from exc
    return claude_agent_sdk
