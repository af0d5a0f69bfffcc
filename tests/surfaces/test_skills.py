"""The skill that comes with the server: over MCP, and what it says."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.skills import SkillsClientExtension

from shared_context_server.models import AgentState
from shared_context_server.skills import SKILL, read_skill
from shared_context_server.tools.catalog import TOOLS
from tests.surfaces.test_mcp import MODERN, client_of

URI = f"skill://{SKILL}/SKILL.md"
MAX_CHARS = 8_000  # a model reads all of it


@pytest.mark.parametrize("mode", [MODERN, "legacy"])
async def test_everyone_can_read_the_skill_as_a_resource(url: str, mode: str) -> None:
    async with client_of(url, mode=mode) as client:
        listed = {each.uri for each in await client.list_resources()}
        [content] = await client.read_resource(URI)
    assert URI in listed
    assert content.text == read_skill()  # type: ignore[union-attr]


async def test_the_skills_extension_lists_the_skill_with_its_digest(url: str) -> None:
    client: Client[StreamableHttpTransport] = Client(
        StreamableHttpTransport(f"{url}/mcp"),
        mode="auto",  # it asks the server what it offers
        extensions=[SkillsClientExtension()],
    )
    async with client:
        [skill] = await client.list_skills()
    assert (skill.uri, skill.frontmatter.name) == (URI, SKILL)
    [file] = skill.resources
    text = read_skill().encode()
    assert (file.uri, file.size) == (URI, len(text))  # type: ignore[union-attr]
    assert file.digest == f"sha256:{sha256(text).hexdigest()}"  # type: ignore[union-attr]


def test_the_skill_names_only_what_exists() -> None:
    text = read_skill()
    assert len(text) < MAX_CHARS
    tools = {tool.name: set(tool.arguments.model_fields) for tool in TOOLS}
    calls = re.findall(r"`(\w+)(?:\(([^`]*)\))?`", text)
    named = {name for name, _ in calls if re.fullmatch(r"[a-z]+_[a-z_]+", name)}
    arguments = set().union(*tools.values())
    results = {"next_after_seq", "session_id", "timed_out", "fencing_token", "expires_at"}
    results |= {"has_more"}
    assert named <= tools.keys() | arguments | results
    for name, given in calls:
        if name in tools:
            assert set(re.findall(r"(\w+)=", given)) <= tools[name], name
    assert {state.value for state in AgentState} <= set(re.findall(r"\w+", text))
