"""Another revision beside this one: refused by name where it cannot be measured, and put away again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.revisions import (
    RevisionError,
    describe_checkout,
    find_commit,
    find_unmet,
    open_revision,
)

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
PROJECT = '[project]\nname = "p"\nversion = "1"\ndependencies = [{}]\n'
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]


def git(repository: Path, *arguments: str) -> str:
    command = [*GIT, *arguments]
    return subprocess.run(
        command, cwd=repository, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose package says which revision it is, tagged `old`, and changed since."""
    folder = tmp_path / "repository"
    package = folder / "src" / "shared_context_server" / "cli"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py", package / "http.py"):
        path.write_text("")
    (folder / "pyproject.toml").write_text(PROJECT.format('"pydantic>=2"'))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "old")
    git(folder, "tag", "old")
    return folder


def worktrees(repository: Path) -> int:
    return len(git(repository, "worktree", "list").splitlines())


def test_a_revision_is_there_for_the_block_and_gone_behind_it(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "src/shared_context_server/cli/http.py").write_text("raise RuntimeError\n")
    assert describe_checkout(repository).is_changed
    with open_revision("old", tmp_path / "cache", repository) as old:
        assert old.source is not None
        assert (old.source / "shared_context_server/cli/http.py").read_text() == ""
        assert (old.commit, old.unmet) == (find_commit("old", repository), ())
        assert worktrees(repository) == 2
    assert worktrees(repository) == 1
    assert not old.source.exists()


@pytest.mark.parametrize("name", ["nosuch", "", "--force", "old..old", "HEAD^{tree}"])
def test_what_is_no_revision_is_refused_by_name(
    repository: Path, tmp_path: Path, name: str
) -> None:
    with (
        pytest.raises(RevisionError, match=r"no revision|not a revision"),
        open_revision(name, tmp_path, repository),
    ):
        pass
    assert worktrees(repository) == 1


def test_a_revision_that_needs_other_packages_says_which(repository: Path, tmp_path: Path) -> None:
    (repository / "src/shared_context_server/cli/http.py").write_text("import no_such_package\n")
    (repository / "pyproject.toml").write_text(PROJECT.format('"no-such-package>=1", "pydantic<1"'))
    git(repository, "commit", "--quiet", "-am", "new")
    with (
        pytest.raises(RevisionError) as refused,
        open_revision("HEAD", tmp_path / "cache", repository),
    ):
        pass
    assert "No module named 'no_such_package'" in str(refused.value)
    assert "no-such-package>=1 (not installed), pydantic<1" in str(refused.value)
    assert worktrees(repository) == 1


def test_a_revision_without_the_package_is_refused(repository: Path, tmp_path: Path) -> None:
    git(repository, "rm", "-rq", "src")
    git(repository, "commit", "--quiet", "-m", "none")
    with (
        pytest.raises(RevisionError, match="has no src/shared_context_server"),
        open_revision("HEAD", tmp_path, repository),
    ):
        pass


def test_this_checkout_requires_what_is_installed() -> None:
    assert list(find_unmet(ROOT / "pyproject.toml")) == []


def test_an_interrupt_puts_the_revision_away(repository: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom bench.revisions import open_revision\n"
        "with open_revision('old', Path(sys.argv[2]), Path(sys.argv[1])) as old:\n"
        "    print(old.source, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(repository), str(tmp_path / "cache")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            source = Path(process.stdout.readline().strip())
            assert source.is_dir()
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE_S) != 0
        finally:
            process.kill()
    assert not source.exists()
    assert worktrees(repository) == 1
