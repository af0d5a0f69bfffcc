"""Makes what wakes each kind of client: hooks in its settings, and commands that watch.

Hooks: https://code.claude.com/docs/en/hooks, https://geminicli.com/docs/hooks/reference, and those of
Codex CLI 0.171.0, which have the form of Claude Code's.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_context_server.cli.clients import Client, ClientConfig, Document
from shared_context_server.errors import ConfigurationError

HOOK_TIMEOUT_S = 10  # of the client, far above that of the hook itself
WAKE_S = 3600  # how long an idle agent can be woken after its last turn
WAIT_S = 100  # of one `scs wait` in a client whose commands may not take two minutes

_NO_HOOKS = (
    "{client} has no hooks that can tell its model something. Use --with-watch, or let the agent "
    "call wait_for_messages."
)
_NO_WATCH = (
    "{client} runs no commands for its model. Let the agent call wait_for_messages, or see "
    "docs/waiting.md."
)


@dataclass(frozen=True, slots=True)
class Waker:
    """Commands of ours for one agent. `program` are the words that start it."""

    program: tuple[str, ...]
    agent_id: str
    data_dir: Path

    def command(self, name: str, *words: str) -> str:
        """A shell command that finds the server and its key by the data dir, and holds no secret."""
        options = ("--agent-id", self.agent_id, "--data-dir", str(self.data_dir))
        return shlex.join([*self.program, name, *words, *options])


def hook_config(client: Client, waker: Waker) -> ClientConfig:
    """The hooks that tell unread mentions. Raises ConfigurationError if the client has none."""
    match client:
        case Client.CLAUDE | Client.CLAUDE_PROXY:
            wake: Document = {
                **_hook(waker.command("hook", "--wake", "--wait", str(WAKE_S - 60)), WAKE_S),
                "asyncRewake": True,  # runs beside the idle agent; exit code 2 wakes it
            }
            hooks = {
                **_on(("SessionStart", "UserPromptSubmit", "PostToolUse"), waker, HOOK_TIMEOUT_S),
                "Stop": [{"hooks": [wake]}],
            }
            file = "~/.claude/settings.json"
        case Client.CODEX:
            hooks = _on(("UserPromptSubmit", "PostToolUse", "Stop"), waker, HOOK_TIMEOUT_S)
            file = "~/.codex/hooks.json"
        case Client.GEMINI:
            # Its unit is the millisecond.
            hooks = _on(("BeforeAgent", "AfterTool", "AfterAgent"), waker, HOOK_TIMEOUT_S * 1000)
            file = "~/.gemini/settings.json"
        case _:
            raise ConfigurationError(_NO_HOOKS.format(client=client))
    return ClientConfig.of_json({"hooks": hooks}, file, has_key=False)


def watch_configs(client: Client, waker: Waker) -> list[ClientConfig]:
    """What lets the client's agent watch. Raises ConfigurationError if the client cannot."""
    watch = waker.command("watch", "all", "--mentions-me")
    match client:
        case Client.CLAUDE | Client.CLAUDE_PROXY:
            # The permission to run it with Monitor, whose rules are those of Bash.
            allowed = {"permissions": {"allow": [f"Bash({watch})"]}}
            return [
                ClientConfig.of_json(allowed, "~/.claude/settings.json", has_key=False),
                ClientConfig(f"# Tell Claude Code: start this with the Monitor tool.\n{watch}"),
            ]
        case Client.CODEX:
            queue = "codex queue --thread THREAD --message {text}"
            run = waker.command(
                *("watch", "all", "--mentions-me", "--allow-sender", "AGENT", "--exec", queue)
            )
            return [
                ClientConfig(
                    "# THREAD: the id or the name of the Codex session. AGENT: whose messages may be "
                    f"put in as your own words.\n{run}"
                )
            ]
        case Client.CLAUDE_DESKTOP | Client.ENV | Client.MCP_REMOTE:
            raise ConfigurationError(_NO_WATCH.format(client=client))
        case _:
            wait = waker.command("wait", "all", "--mentions-me", "--timeout", str(WAIT_S))
            return [ClientConfig(f"# Tell the agent: run this to wait for messages.\n{wait}")]


def _on(events: tuple[str, ...], waker: Waker, timeout: int) -> Document:
    return {event: [{"hooks": [_hook(waker.command("hook"), timeout)]}] for event in events}


def _hook(command: str, timeout: int) -> dict[str, Any]:
    return {"type": "command", "command": command, "timeout": timeout}
