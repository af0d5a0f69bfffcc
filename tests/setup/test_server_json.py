"""The description of the server for registries of MCP servers, of the schema 2025-12-11."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from shared_context_server import about
from shared_context_server.environment import PREFIX
from shared_context_server.settings import Settings, ToolSet

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHECKOUT / "server.json").read_text(encoding="utf-8"))
    return found


def test_it_says_what_the_server_and_the_package_say(described: dict[str, Any]) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (described["title"], described["description"]) == (about.TITLE, about.DESCRIPTION)
    assert len(described["description"]) <= 100  # characters, the schema's limit
    [package] = described["packages"]
    assert package["identifier"] == project["name"]
    assert package["identifier"] in project["scripts"]  # uvx runs the script of the package's name
    assert described["version"] == package["version"] == project["version"]


def test_the_readme_has_the_same_name_as_proof_of_ownership(described: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", described["name"])
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"mcp-name: (\S+)", readme) == [described["name"]]


def test_its_variables_are_settings(described: dict[str, Any]) -> None:
    [package] = described["packages"]
    variables = {each["name"]: each for each in package["environmentVariables"]}
    names = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    assert variables.keys() <= names
    assert variables["SCS_TOOLS"]["choices"] == [each.value for each in ToolSet]
    for variable in variables.values():
        name = variable["name"].removeprefix(PREFIX).lower()
        is_url = name.endswith("url")
        assert variable.get("isSecret", False) is is_url  # it may contain a password


def test_it_names_no_address_but_that_of_its_schema(described: dict[str, Any]) -> None:
    text = json.dumps({name: value for name, value in described.items() if name != "$schema"})
    assert "://" not in text
