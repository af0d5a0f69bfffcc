"""`make setup`: from an interpreter's own pip to what is pinned, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.setup.conftest import INTERPRETER, Ended, Project
from tests.setup.wheels import REPOSITORY, make_wheel

PINNED = {"demo-framework==1.0", "demo-library==1.0", "demo-mail==1.0", "small-project==1.0"}


def test_a_newer_release_behind_an_extra_does_not_break_a_fresh_install(
    first_setup: tuple[Project, Ended],
) -> None:
    project, ended = first_setup

    assert ended.code == 0, ended
    assert project.installed() >= PINNED
    assert ended.lines == []


def test_what_is_up_to_date_is_not_installed_again(ready: Project) -> None:
    ended = ready.setup(PIP_FIND_LINKS="/nowhere")

    assert (ended.code, ended.lines) == (0, [])
    assert "setup:" not in ended.out


def test_new_pins_are_installed_into_the_environment_there_is(ready: Project) -> None:
    pinned = ready.pin("demo-addition")

    ended = ready.setup()

    assert ended.code == 0, ended
    assert "setup: making .venv" not in ended.out
    assert ready.installed() >= {*PINNED, pinned}


def test_a_wheel_with_another_hash_than_the_pinned_one_is_refused(ready: Project) -> None:
    pins = ready.folder / "requirements/dev.txt"
    before = pins.read_text()
    pinned = ready.pin("demo-forged")
    make_wheel(ready.wheels, "demo-forged", "1.0", requires=("demo-library",))

    ended = ready.setup()

    assert ended.code != 0
    assert "demo-forged" in ended.err
    assert "hash" in ended.err.lower()
    assert pinned not in ready.installed()
    pins.write_text(before)


def test_without_a_uv_for_the_platform_the_pinned_pip_installs_and_says_so(ready: Project) -> None:
    pinned = ready.pin("demo-by-pip")
    ready.forget_installer()
    (uv,) = ready.wheels.glob("uv-*")
    hidden = uv.rename(ready.folder / uv.name)

    ended = ready.setup()

    hidden.rename(uv)
    assert ended.code == 0, ended
    assert pinned in ready.installed()
    assert ended.lines == [
        "setup: the package index has no uv for this platform; installing with pip, which is slower"
    ]


def test_a_setting_of_pip_that_uv_does_not_know_makes_pip_install(ready: Project) -> None:
    pinned = ready.pin("demo-by-setting")

    ended = ready.setup(PIP_NO_BINARY="demo-nothing")

    assert ended.code == 0, ended
    assert pinned in ready.installed()
    assert ended.lines == [
        "setup: uv has no counterpart of pip's setting 'no-binary'; installing with pip, which is slower"
    ]


def test_pip_is_used_where_uv_does_not_reach_the_index(ready: Project) -> None:
    pinned = ready.pin("demo-unreached")
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:1/simple", "UV_HTTP_RETRIES": "0"}

    # Settings of uv's own lead nowhere, and pip's folder of wheels is not uv's.
    (empty := ready.folder / "empty").mkdir()
    ended = ready.setup(PIP_NO_INDEX="", PIP_RETRIES="0", UV_FIND_LINKS=str(empty), **nowhere)

    assert ended.code == 0, ended
    assert pinned in ready.installed()
    assert ended.lines == [
        "setup: uv could not reach the package index; trying pip, which is slower"
    ]


def test_what_keeps_a_setup_from_its_end_is_told_in_one_line_and_a_second_goes_on(
    project: Project,
) -> None:
    """Also where an environment is whose interpreter is gone: it is made anew."""
    environment = project.folder / ".venv/pyvenv.cfg"
    lay_environment_without_interpreter(project)

    ended = project.setup(python="/nowhere/python3")
    assert ended.code != 0
    (line,) = ended.lines
    assert line.startswith(
        "setup: no Python >= 3.11 with venv among: /nowhere/python3; install one"
    )

    ended = project.setup(
        PIP_NO_INDEX="",
        PIP_INDEX_URL="http://127.0.0.1:1/simple",
        PIP_RETRIES="1",
        PIP_FIND_LINKS="",
    )
    assert ended.code != 0
    (line,) = ended.lines
    assert line.startswith("setup: no package index could be reached for uv; connect this machine")
    assert "setup: making .venv" in ended.out
    made_at = environment.stat().st_mtime_ns

    assert project.setup().code == 0
    assert project.installed() >= PINNED
    assert environment.stat().st_mtime_ns == made_at


def test_a_full_disk_is_told_in_one_line(project: Project) -> None:
    mounted = project.folder / ".venv"
    mounted.mkdir()
    # In a mount namespace of its own, so that nothing is left mounted; pip fits in, uv does not.
    script = f"mount -t tmpfs -o size=30m none {mounted} && exec make setup PYTHON={INTERPRETER}"
    variables = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(project.wheels),
        "PIP_CONFIG_FILE": os.devnull,
    }
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", "--mount", *user, "sh", "-c", script],
        cwd=project.folder,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1, done
    assert "setup: the disk is full" in lines[0]


def lay_environment_without_interpreter(project: Project) -> None:
    stamp = project.folder / ".venv/.made"
    stamp.parent.mkdir()
    stamp.write_text(f"{project.folder}\n")
    (stamp.parent / "bin").mkdir()
    (stamp.parent / "bin/python").symlink_to("/nowhere/python3")


def test_an_environment_of_a_folder_that_was_moved_is_made_anew(project: Project) -> None:
    stamp = project.folder / ".venv/.made"
    stamp.parent.mkdir()
    stamp.write_text("/where/it/was/before\n")
    subprocess.run([INTERPRETER, "-m", "venv", "--without-pip", stamp.parent], check=True)

    ended = project.setup()

    assert ended.code == 0, ended
    assert "setup: making .venv" in ended.out
    assert project.installed() >= PINNED


@pytest.mark.parametrize("part", [".", "client"])
def test_uv_resolves_the_checkout(part: str, tmp_path: Path, ready: Project) -> None:
    copy = tmp_path / "checkout"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "*pyproject.toml", "*README.md", "*LICENSE", "src/*/__init__.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, tracked.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy / name)

    done = subprocess.run(
        [ready.folder / ".venv/installer/uv/bin/uv", "lock", "--python", INTERPRETER],
        cwd=copy / part,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
