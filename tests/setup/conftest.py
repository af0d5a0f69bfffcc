"""What the tests of `make setup` use: the commands themselves, in projects of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import AUTHORITIES
from tests.setup.wheels import REPOSITORY, make_project, make_wheel

# The interpreter that .venv was made with: its ensurepip brings the oldest pip there is.
INTERPRETER = str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and the lines it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What was said on stderr, without make's own closing line."""
        return [line for line in self.err.splitlines() if not line.startswith("make")]


def _environment(**variables: str) -> dict[str, str]:
    """The environment without settings of make, pip and uv, which a project brings along."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PIP_", "UV_"))
    }
    for name in ("VIRTUAL_ENV", "PYTHON", "SSL_CERT_DIR"):
        kept.pop(name, None)
    return kept | AUTHORITIES | {"PIP_CONFIG_FILE": os.devnull} | variables


@dataclass(frozen=True, slots=True)
class Project:
    """A small project that is set up by our Makefile from a folder of wheels."""

    folder: Path
    wheels: Path

    def setup(self, *, python: str = INTERPRETER, **variables: str) -> Ended:
        """Run `make setup` with the wheels as pip's only index, unless the variables say otherwise."""
        settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)} | variables
        done = subprocess.run(
            ["make", "setup", f"PYTHON={python}"],
            cwd=self.folder,
            env=_environment(**{name: value for name, value in settings.items() if value}),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def pin(self, name: str, requires: tuple[str, ...] = ()) -> str:
        """Make a wheel, pin it in dev.txt too, and return it in the form name==version."""
        line = make_wheel(self.wheels, name, "1.0", requires=requires)
        with (self.folder / "requirements/dev.txt").open("a") as pins:
            pins.write(line)
        return f"{name}==1.0"

    def forget_installer(self) -> None:
        shutil.rmtree(self.folder / ".venv/installer")

    def installed(self) -> set[str]:
        """Names and versions of what is in .venv, in the form name==version."""
        code = "from importlib.metadata import distributions as all_\n"
        code += "for d in all_(): print(f'{d.name}=={d.version}')"
        python = self.folder / ".venv/bin/python"
        return set(
            subprocess.run(
                [python, "-c", code], capture_output=True, text=True, check=True
            ).stdout.split()
        )


@pytest.fixture(scope="session")
def installers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned wheels of uv and pip, fetched once from the package index of this machine."""
    folder = tmp_path_factory.mktemp("installers")
    for pin in ("uv.txt", "pip.txt"):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
        ]
        command += [
            "--require-hashes",
            "--dest",
            str(folder),
            "-r",
            str(REPOSITORY / "requirements" / pin),
        ]
        env = os.environ | AUTHORITIES
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode and os.environ.get("CI") != "true":
            pytest.skip(f"no package index can be reached: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(tmp_path: Path, installers: Path) -> Project:
    """A project that nothing is installed for yet."""
    return _lay_project(tmp_path, installers)


@pytest.fixture(scope="module")
def first_setup(
    tmp_path_factory: pytest.TempPathFactory, installers: Path
) -> tuple[Project, Ended]:
    """A project, and how its first `make setup` ended."""
    project = _lay_project(tmp_path_factory.mktemp("ready"), installers)
    return project, project.setup()


@pytest.fixture
def ready(first_setup: tuple[Project, Ended]) -> Project:
    """A project that is set up."""
    return first_setup[0]


def _lay_project(directory: Path, installers: Path) -> Project:
    """Make a project whose dev.txt pins packages one of which has a newer release by now."""
    folder = directory / "wheels"
    shutil.copytree(installers, folder, copy_function=os.link)
    pins = make_wheel(folder, "demo-framework", "1.0", requires=("demo-library[mail]>=1.0",))
    pins += make_wheel(folder, "demo-mail", "1.0")
    mail = "demo-mail; extra == 'mail'"
    pins += make_wheel(folder, "demo-library", "1.0", requires=(mail,), extra="mail")
    make_wheel(folder, "demo-library", "1.1", requires=(mail,), extra="mail")
    make_project(directory / "project", pins)
    return Project(directory / "project", folder)
