"""Writes the plugin for Claude Code from what exists: `make docs`.

The folder `plugin/` has the server, the hooks of `client-config --with-hook` and the skill, and
`.claude-plugin/marketplace.json` offers it: `claude plugin marketplace add PATH`. A test fails while
the files are out of date. Formats: https://code.claude.com/docs/en/plugins-reference and
plugin-marketplaces, checked with `claude plugin validate --strict` of Claude Code 2.1.197.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from shared_context_server import __version__
from shared_context_server.about import DESCRIPTION
from shared_context_server.cli.clients import SERVER_NAME, Client, default_agent_id
from shared_context_server.cli.wakers import Waker, hook_config
from shared_context_server.skills import FILE, SKILL, read_skill

MARKETPLACE: Final = "shared-context-server"
_FOLDER: Final = "plugin"
_OWNER: Final = {"name": "Shared Context Server contributors"}
_PROGRAM: Final = "scs"
_AGENT_ID: Final = default_agent_id(Client.CLAUDE)


class _PluginWaker(Waker):
    """Commands that read the options of the plugin. Claude Code passes those that the user has set as
    variables; the server is found by the usual data dir, or by SCS_DATA_DIR."""

    __slots__ = ()

    def command(self, name: str, *words: str) -> str:
        program = f'"${{CLAUDE_PLUGIN_OPTION_PROGRAM:-{_PROGRAM}}}"'
        agent_id = f'"${{CLAUDE_PLUGIN_OPTION_AGENT_ID:-{_AGENT_ID}}}"'
        return " ".join([program, name, *words, "--agent-id", agent_id])


def plugin_files() -> dict[str, str]:
    """The text of each file, by its path in the checkout."""
    plugin = {"name": SERVER_NAME, "version": __version__, "description": DESCRIPTION}
    waker = _PluginWaker((_PROGRAM,), _AGENT_ID, Path())
    return {
        ".claude-plugin/marketplace.json": _json(
            {
                "name": MARKETPLACE,
                "owner": _OWNER,
                "metadata": {"description": "The plugin of the Shared Context Server."},
                "plugins": [
                    {
                        "name": SERVER_NAME,
                        "source": f"./{_FOLDER}",
                        "description": DESCRIPTION,
                    }
                ],
            }
        ),
        f"{_FOLDER}/.claude-plugin/plugin.json": _json(
            {
                **plugin,
                "author": _OWNER,
                "license": "MIT",
                "keywords": ["mcp", "agents", "shared-context", "memory"],
                "userConfig": {
                    "program": _option(
                        "Program",
                        "The program scs of the Shared Context Server, with its path if it is not in "
                        "PATH.",
                        _PROGRAM,
                    ),
                    "agent_id": _option(
                        "Agent id", "The name under which other agents see this one.", _AGENT_ID
                    ),
                },
            }
        ),
        f"{_FOLDER}/.mcp.json": _json(
            {
                "mcpServers": {
                    SERVER_NAME: {
                        "command": "${user_config.program}",
                        "args": [
                            *("serve", "--transport", "stdio"),
                            *("--agent-id", "${user_config.agent_id}"),
                        ],
                    }
                }
            }
        ),
        f"{_FOLDER}/hooks/hooks.json": _json(hook_config(Client.CLAUDE, waker).document),
        f"{_FOLDER}/skills/{SKILL}/{FILE}": read_skill(),
    }


def _option(title: str, description: str, default: str) -> dict[str, str]:
    return {"type": "string", "title": title, "description": description, "default": default}


def _json(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    """Update the files below the given directory, by default below the working directory."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    for name, text in plugin_files().items():
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"updated {path}")


if __name__ == "__main__":
    main()
