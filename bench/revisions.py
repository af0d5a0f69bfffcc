"""Another revision of the repository beside this one, as a git worktree for a with block."""

from __future__ import annotations

import contextlib
import importlib.metadata
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from bench.servers import warm_environment

REPOSITORY = Path(__file__).parents[1]


class RevisionError(Exception):
    """A revision cannot be measured; the text says why."""


@dataclass(frozen=True)
class Revision:
    """`source`: where its package is imported from; None: this checkout, as it is.
    `unmet`: what it requires and this environment has not."""

    name: str
    commit: str
    is_changed: bool
    source: Path | None = None
    unmet: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        return f"{self.commit[:12]}{' with changes' if self.is_changed else ''}"


def describe_checkout(repository: Path = REPOSITORY) -> Revision:
    """This checkout, with whatever is not committed in it. Raises RevisionError."""
    commit = _git(repository, "rev-parse", "HEAD").strip()
    changed = _git(repository, "status", "--porcelain", "--untracked-files=no").strip()
    return Revision("this checkout", commit, bool(changed))


def find_commit(name: str, repository: Path = REPOSITORY) -> str:
    """The commit of a revision. Raises RevisionError."""
    if not name or name.startswith("-"):
        raise RevisionError(f"{name!r} is not a revision of git.")
    try:
        return _git(
            repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        ).strip()
    except RevisionError:
        raise RevisionError(f"git knows no revision {name!r} here.") from None


@contextlib.contextmanager
def open_revision(name: str, cache: Path, repository: Path = REPOSITORY) -> Iterator[Revision]:
    """A revision in a folder of its own, which is removed at the end.

    Raises RevisionError for one that git does not know, or that does not start on the packages of this
    environment.
    """
    commit = find_commit(name, repository)
    with tempfile.TemporaryDirectory(prefix="scs-bench-") as directory:
        folder = Path(directory) / "base"
        try:
            _git(repository, "worktree", "add", "--detach", "--force", str(folder), commit)
            source = folder / "src"
            unmet = tuple(find_unmet(folder / "pyproject.toml"))
            _require_importable(source, cache, name, unmet)
            yield Revision(name, commit, False, source, unmet)
        finally:
            with contextlib.suppress(RevisionError):  # it was not made
                _git(repository, "worktree", "remove", "--force", str(folder))


def find_unmet(project_file: Path) -> Iterator[str]:
    """The requirements of a project that the packages of this environment do not meet, in words."""
    project = tomllib.loads(project_file.read_text(encoding="utf-8"))["project"]
    for text in project.get("dependencies", ()):
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{text} (not installed)"
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            yield f"{text} ({installed} is installed)"


def _require_importable(source: Path, cache: Path, name: str, unmet: tuple[str, ...]) -> None:
    package = source / "shared_context_server"
    if not package.is_dir():
        raise RevisionError(f"{name} has no src/shared_context_server.")
    program = "import shared_context_server.cli.http as h; print(h.__file__)"
    imported = subprocess.run(
        [sys.executable, "-c", program],
        env=warm_environment(cache, source),
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if imported.returncode:
        last = (imported.stderr.strip().splitlines() or ["no reason"])[-1]
        asked = f" It requires {', '.join(unmet)}." if unmet else ""
        raise RevisionError(
            f"{name} cannot be imported with the packages of {sys.prefix}: {last}.{asked}"
        )
    if not Path(imported.stdout.strip()).is_relative_to(package):
        raise RevisionError(f"{imported.stdout.strip()} was imported instead of {name}.")


def _git(repository: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=repository,
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        raise RevisionError("git is not on PATH.") from None
    except subprocess.CalledProcessError as exc:
        raise RevisionError(f"git {arguments[0]}: {exc.stderr.strip()}") from exc
    return answer.stdout
