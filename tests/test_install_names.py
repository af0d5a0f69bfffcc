"""Nothing makes anybody install us by name: another project owns ours on the package index."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Made, downloaded or local to a machine; hidden ones are left out but for what git and CI read.
SKIPPED = {"dist", "build", "site", "htmlcov", "node_modules", "__pycache__"}
HIDDEN = {".github", ".ci"}
OURS = r"shared[-_.]?context[-_.]?(?:server|client)"
# A path or a URL before it, or what makes it a file's name behind it, and it is not looked up.
REQUIREMENT = rf"(?<![\w./\\-]){OURS}(?![\w/\\-]|\.\w)"
INSTALLER = (
    r"\b(?:(?:pip3?|uv|pdm|poetry|rye|conda|mamba|hatch|pipenv)\b.{0,80}?\b(?:install|add|run|tool|download)"
    r"|pipx\b.{0,20}?\b(?:install|run|inject)|uvx)\b"
)
BY_NAME = re.compile(rf"{INSTALLER}[^\n;&|]*?{REQUIREMENT}|{REQUIREMENT}\[\w", re.IGNORECASE)
FROM_HERE = re.compile(r"(?:install|--from|--spec)[ =]\.(?![\w/])")
# A text that is written on several lines: a string of Python in parts, a command with \ at its end.
JOINTS = re.compile(r"[\"']\s*\n\s*[rbf]*[\"']|\\\n\s*")


def find_installs_by_name(text: str) -> list[str]:
    found = [match[0] for match in BY_NAME.finditer(JOINTS.sub("", text))]
    return [command for command in found if not FROM_HERE.search(command)]


def own_files(directory: Path) -> Iterator[Path]:
    """The texts of the repository."""
    for path in sorted(directory.iterdir()):
        if path.name in SKIPPED or (path.name.startswith(".") and path.name not in HIDDEN):
            continue
        if path.is_dir():
            yield from own_files(path)
        elif path != Path(__file__):
            yield path


def test_no_file_has_somebody_install_us_by_name() -> None:
    paths = list(own_files(ROOT))
    assert {"README.md", "Makefile", "Dockerfile"} <= {path.name for path in paths}
    found = {}
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if installs := find_installs_by_name(text):
            found[str(path.relative_to(ROOT))] = installs
    assert found == {}


def test_no_distribution_depends_on_us_by_name() -> None:
    for name in ("pyproject.toml", "client/pyproject.toml"):
        document = tomllib.loads((ROOT / name).read_text(encoding="utf-8"))
        project = document["project"]
        groups = [
            project["dependencies"],
            *project.get("optional-dependencies", {}).values(),
            *document.get("dependency-groups", {}).values(),
        ]
        for requirement in (one for group in groups for one in group if isinstance(one, str)):
            assert not re.match(OURS, requirement, re.IGNORECASE), requirement


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'shared-context-server[agent]'",
        "pip install shared-context-client",
        "python -m pip install --upgrade shared_context_server==0.1.0",
        "uv pip install Shared-Context-Server",
        "uvx shared-context-server serve",
        "uvx --from .venv shared-context-server",
        "uvx --from other shared-context-server",
        "uv tool install shared-context-server",
        "pipx run shared-context-server",
        "poetry add shared-context-client",
        '"PostgreSQL needs "\n    "shared-context-server[postgres]"',
        '"pip install "\n    f"shared-context-server"',
        "pip install \\\n  shared-context-client",
    ],
)
def test_an_install_by_name_is_found(text: str) -> None:
    assert find_installs_by_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install '.[agent]'",
        "pip install dist/shared_context_client-*.whl",
        "pip install 'dist/shared_context_client-0.1.0-py3-none-any.whl[langchain]'",
        "pip install ./shared-context-server",
        "uvx --from . shared-context-server",
        "pipx run --spec . shared-context-server",
        "from shared_context_server.embed import agent_options",
        "shared-context-server serve",
    ],
)
def test_an_install_by_path_is_none(text: str) -> None:
    assert not find_installs_by_name(text)
