"""Agent skills that come with the server: folders with a SKILL.md, as https://agentskills.io/specification
describes them. Clients read them over MCP, or as files that `client-config --with-skill` installs."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

SKILL: Final = "work-with-others"
FILE: Final = "SKILL.md"


def read_skill() -> str:
    """The text of the skill's only file."""
    return files(__name__).joinpath(SKILL, FILE).read_text(encoding="utf-8")
