"""Ready options for an agent of the Claude Agent SDK (extra `agent`)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_context_server.embed.sdk_server import READ_WRITE, create_sdk_server, make_agent
from shared_context_server.embed.timings import ToolTimings
from shared_context_server.environment import Surroundings
from shared_context_server.errors import ConfigurationError
from shared_context_server.models import Permission
from shared_context_server.settings import load_settings
from shared_context_server.tools.catalog import served_tools

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions

# What a tool's full name is made of: `mcp__{key}__{tool}` has to come apart again.
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

    Its tools, those that the permissions allow, are in `allowed_tools` as `mcp__{key}__{tool}`.
    `options` are ClaudeAgentOptions' own; mcp_servers, allowed_tools and hooks are added to.
    `timing`: True, or a record of yours, times every tool call; `tool_timings` finds the record.
    Raises ConfigurationError, also without the extra `agent`, and for a key that is taken.
    """
    sdk = _import_sdk()
    if not _KEY.fullmatch(key):
        raise ConfigurationError("key: letters, digits, '-' and single '_' only.")
    servers = _read_servers(options.pop("mcp_servers", None) or {})
    if key in servers:
        raise ConfigurationError(f"mcp_servers has an entry {key!r} already; pass another key.")
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
    """The full names of the tools that these permissions let an agent call."""
    return [
        f"mcp__{key}__{tool.name}"
        for tool in served_tools(load_settings(Surroundings.PROJECT).tools)
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
    raise LookupError("These options time nothing; make them with timing=True.")


def _add_timing(
    hooks: Mapping[str, list[Any]], record: ToolTimings, matcher: Any
) -> dict[str, list[Any]]:
    # First before a call and last after it would be fairest, but hooks of one event run at once.
    added = {"PreToolUse": record.before, **dict.fromkeys(_ENDS, record.after)}
    timed = {event: [*hooks.get(event, ()), matcher(hooks=[hook])] for event, hook in added.items()}
    return {**hooks, **timed}


def _read_servers(servers: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """The user's own servers, of a dict or, as the SDK takes them too, of JSON or a file of it."""
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
            "agent_options needs the Claude Agent SDK: pip install claude-agent-sdk, or the extra agent "
            "from where the server came from: pip install 'CHECKOUT[agent]', or 'WHEEL[agent]', with "
            "the path of either."
        ) from exc
    return claude_agent_sdk
