"""The recipes of CONTRIBUTING.md name the files that a change really touches."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from shared_context_server.cli import client_source, reference
from shared_context_server.models import Message
from shared_context_server.storage.backends import PACKAGES
from shared_context_server.storage.contract import Store
from shared_context_server.tools.catalog import TOOLS
from tests.storage.conftest import EMPTY_STORES
from tests.tool_calls import RIGHT_CALLS

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src/shared_context_server"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SUBJECTS = [field.name for field in fields(Store)]
STORES = sorted(set(PACKAGES.values()))
RECIPES = [
    "a tool",
    "a page to the dashboard",
    "a setting",
    "a field to messages",
    "a storage method",
    "a migration",
    "a store",
]


@dataclass(frozen=True)
class Step:
    """A row of a recipe: a file, and the names that it contains."""

    path: str
    names: list[str]

    def __str__(self) -> str:
        return self.path

    @property
    def variants(self) -> list[str]:
        """The path in each store, as a pattern of `Path.glob`."""
        stores = STORES if "STORE" in self.path else [""]
        return [
            self.path.replace("STORE", store).replace("SUBJECT", "*").replace("NNNN_name", "[0-9]*")
            for store in stores
        ]

    @property
    def files(self) -> Iterator[list[Path]]:
        """The files of each store that the path stands for."""
        for variant in self.variants:
            yield [*ROOT.glob(variant), *SOURCES.glob(variant)]


def steps_of(recipe: str) -> list[Step]:
    section = PAGE.split(f"\n### Add {recipe}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    rows = re.findall(r"^\| `(\S+)` \| (.*) \|$", section, re.MULTILINE)
    return [Step(path, re.findall(r"`([\w\[\]]+)`", what)) for path, what in rows]


ALL_STEPS = [pytest.param(step, id=f"{r}: {step}") for r in RECIPES for step in steps_of(r)]


def test_each_recipe_is_read() -> None:
    assert re.findall(r"^### Add (.*)$", PAGE, re.MULTILINE) == RECIPES
    assert all(len(steps_of(recipe)) >= 3 for recipe in RECIPES)


@pytest.mark.parametrize("step", ALL_STEPS)
def test_a_file_of_a_recipe_exists_and_contains_what_the_recipe_names(step: Step) -> None:
    for files in step.files:
        assert files
    text = "\n".join(path.read_text(encoding="utf-8") for files in step.files for path in files)
    assert [name for name in step.names if name not in text] == []


@pytest.mark.parametrize("step", steps_of("a tool"), ids=str)
def test_each_tool_is_in_the_files_of_its_recipe(step: Step) -> None:
    if "SUBJECT" in step.path or step.path == "CHANGELOG.md":
        return
    (text,) = (path.read_text(encoding="utf-8") for files in step.files for path in files)
    assert [tool.name for tool in TOOLS if tool.name not in text] == []


def test_each_tool_is_in_the_module_of_its_subject() -> None:
    package = "shared_context_server.tools"
    places = {tool.handler.__module__.rpartition(".")[0] for tool in TOOLS}
    assert places == {package}
    assert {tool.handler.__name__ for tool in TOOLS} == {tool.name for tool in TOOLS}


def test_each_tool_has_a_right_call() -> None:
    assert {tool for tool, _ in RIGHT_CALLS} == {tool.name for tool in TOOLS}


def test_what_make_docs_writes_is_named() -> None:
    for page in reference.PARTS:
        assert f"`{page}`" in PAGE
    assert client_source.DIRECTORY.parts[0] == "client"


@pytest.mark.parametrize("step", steps_of("a field to messages"), ids=str)
def test_the_newest_optional_field_of_messages_is_in_each_file_of_the_recipe(step: Step) -> None:
    if step.path == "CHANGELOG.md":
        return
    optional = "parent_message_id"
    assert optional in Message._fields
    word = "parent" if step.path == "tools/written.py" else optional
    for files in step.files:
        assert any(word in path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_subject_of_the_store_is_in_the_files_of_a_storage_method(subject: str) -> None:
    contract, *stores, test = steps_of("a storage method")
    for step in (contract, *stores):
        assert (SOURCES / step.path.replace("SUBJECT", subject)).exists()
    tests = (ROOT / test.path).parent.glob("test_*.py")
    assert any(subject in path.stem for path in tests)


def test_each_store_is_registered_protected_and_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {each["id"]: each for each in project["tool"]["importlinter"]["contracts"]}
    protected = contracts["backends"]["protected_modules"]
    assert sorted(module.rpartition(".")[2] for module in protected) == STORES
    assert {PACKAGES[scheme] for scheme in EMPTY_STORES} == set(STORES)


def test_the_files_of_the_drawing_of_a_message_s_way_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawing = page.split("## The way of a message", 1)[1].split("```")[1]
    paths = re.findall(r"[\w/]+\.py\b", drawing)
    assert len(paths) > 15
    assert [path for path in paths if not (SOURCES / path).exists()] == []


def test_each_module_that_the_page_of_the_architecture_names_exists() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    paths = re.findall(r"`([\w/]+(?:\.py|/))`", page)
    places = (ROOT, SOURCES, SOURCES / "storage", SOURCES / "storage/sqlite")
    assert [path for path in paths if not any((place / path).exists() for place in places)] == []
