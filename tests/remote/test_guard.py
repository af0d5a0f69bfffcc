"""`scs guard` in real git repositories: which commits it stops."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.remote.conftest import Hub

GIT = (
    "git",
    "-c",
    "user.name=n",
    "-c",
    "user.email=e@example.org",
    "-c",
    "init.defaultBranch=main",
)


@pytest.fixture
def repository(hub: Hub) -> Path:
    git(hub, "init", "-q")
    for name in ("src/a.py", "src/old.py", "docs/a.md"):
        path = hub.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name} has enough text to be found again\n")
    git(hub, "add", "src", "docs")
    return hub.directory


def git(hub: Hub, *arguments: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run([*GIT, *arguments], cwd=hub.directory, env=env, check=True)


def test_staged_files_that_others_hold_stop_the_commit(hub: Hub, repository: Path) -> None:
    session = hub.session()
    answer = hub.run("guard", SCS_SESSION=session)  # before the first commit
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    git(hub, "commit", "-qm", "first")
    lease = {"session_id": session, "ttl_seconds": 600}
    src = hub.call("acquire_lease", "bob", name="parser", paths=["src/old*", "new/**"], **lease)
    hub.call("acquire_lease", "alice", name="mine", paths=["docs/**"], **lease)
    hub.call("acquire_lease", "bob", name="no paths", **lease)
    assert hub.run("guard", session).returncode == 0  # nothing is staged
    git(hub, "mv", "src/old.py", "other.py")
    git(hub, "mv", "src/a.py", "new\nname.py")
    git(hub, "rm", "-q", "docs/a.md")
    (repository / "src" / "old2.py").write_text("not staged\n")
    answer = hub.run("guard", session)
    held = f"src/old.py: held by bob (lease parser) until {src['expires_at']}\n"
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, held, "")
    as_carol = hub.run("guard", session, agent="carol").stdout.splitlines()
    assert [line.partition(" until")[0] for line in as_carol] == [
        "docs/a.md: held by alice (lease mine)",
        "src/old.py: held by bob (lease parser)",
    ]
    hub.call("release_lease", "bob", name="parser", session_id=session, fencing_token=1)
    assert hub.run("guard", session).returncode == 0


def test_what_happens_when_nothing_can_be_checked(hub: Hub, repository: Path) -> None:
    away = ("--url", "http://127.0.0.1:9")
    answer = hub.run("guard", "session_x", *away)
    assert (answer.returncode, answer.stdout) == (0, "")
    assert "were not checked" in answer.stderr
    assert hub.run("guard", "session_x", *away, "--when-away", "fail").returncode == 1
    assert hub.run("guard", "session_0000000000000000").returncode == 3
    assert hub.run("guard", hub.session(), SCS_API_KEY="wrong").returncode == 4
    answer = hub.run("guard")
    assert (answer.returncode, "SCS_SESSION" in answer.stderr) == (2, True)
    answer = hub.run("guard", hub.session(), GIT_DIR=str(repository / "none"))
    assert (answer.returncode, "git repository" in answer.stderr) == (2, True), answer.stderr
