"""The files of pins: whole, hashed, without addresses, and within what pyproject.toml allows."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.setup.wheels import REPOSITORY

FILES = sorted((REPOSITORY / "requirements").glob("*.txt"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def read_pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((REPOSITORY / "requirements" / name).read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_line_is_pinned_and_hashed_and_names_no_address(path: Path) -> None:
    joined = path.read_text().replace("\\\n", " ")
    for line in joined.splitlines():
        if not line or line.lstrip().startswith("#"):
            continue
        assert PIN.match(line), line
        assert "--hash=sha256:" in line, line
        assert "://" not in line, line


def test_no_lock_file_with_addresses_is_tracked() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    names = {line.rsplit("/", 1)[-1] for line in tracked.stdout.splitlines()}
    assert not names & {
        "uv.lock",
        "poetry.lock",
        "Pipfile.lock",
        "pdm.lock",
        "package-lock.json",
        "yarn.lock",
    }


def test_what_is_pinned_is_allowed_by_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    pins = read_pins("runtime.txt")
    asked = (
        project["project"]["dependencies"] + project["project"]["optional-dependencies"]["postgres"]
    )
    for requirement in map(Requirement, asked):
        assert pins[requirement.name] in requirement.specifier, requirement


@pytest.mark.parametrize(
    "package", ["uvicorn", "mcp", "mcp-types", "fastmcp", "aiosqlite", "aiosqlitepool", "asyncpg"]
)
def test_a_package_whose_inside_is_used_has_an_upper_bound_below_its_next_minor(
    package: str,
) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    asked = (
        project["project"]["dependencies"] + project["project"]["optional-dependencies"]["postgres"]
    )
    (requirement,) = (r for r in map(Requirement, asked) if r.name == package)
    major, minor = read_pins("runtime.txt")[package].split(".")[:2]
    assert f"{major}.{int(minor) + 1}" not in requirement.specifier


def test_runtime_and_development_install_the_same_versions() -> None:
    development = read_pins("dev.txt")
    assert {n: v for n, v in read_pins("runtime.txt").items() if n in development} == {
        n: v for n, v in development.items() if n in read_pins("runtime.txt")
    }
