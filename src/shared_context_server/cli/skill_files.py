"""Installs the skill that comes with the server as a file where each kind of client looks for skills.

Folders: https://code.claude.com/docs/en/skills, https://developers.openai.com/codex/skills,
https://geminicli.com/docs/cli/skills/, https://cursor.com/docs/context/skills,
https://code.visualstudio.com/docs/copilot/customization/agent-skills,
https://docs.windsurf.com/windsurf/cascade/skills, https://opencode.ai/docs/skills.
"""

from __future__ import annotations

from typing import Final

from shared_context_server.cli.clients import Client, ClientConfig
from shared_context_server.errors import ConfigurationError
from shared_context_server.skills import FILE, SKILL, read_skill

_FOLDERS: Final = {
    Client.CLAUDE: "~/.claude/skills",
    Client.CLAUDE_PROXY: "~/.claude/skills",
    Client.CODEX: "~/.agents/skills",
    Client.GEMINI: "~/.gemini/skills",
    Client.CURSOR: "~/.cursor/skills",
    Client.VSCODE: "~/.copilot/skills",
    Client.WINDSURF: "~/.codeium/windsurf/skills",
    Client.OPENCODE: "~/.config/opencode/skills",
}


def skill_config(client: Client) -> ClientConfig:
    """The skill's file. Raises ConfigurationError if the client reads no skills from files."""
    folder = _FOLDERS.get(client)
    if folder is None:
        raise ConfigurationError(
            f"{client} reads no skills from files. Clients with the skills extension of MCP read "
            f"skill://{SKILL}/{FILE} from the server."
        )
    return ClientConfig(read_skill(), f"{folder}/{SKILL}/{FILE}", has_key=False)
