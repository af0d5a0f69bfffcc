"""What is shipped runs without the checkout: all files are in the wheel, and the sdist makes the same wheel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_S
from tests.setup.wheels import REPOSITORY

PACKAGE = "shared_context_server"
MAX_PICTURE_BYTES = 150_000
LEFT_OUT = {"__pycache__", ".DS_Store"}


def build(folder: Path, into: Path) -> tuple[Path, Path]:
    """The sdist and the wheel of the project in this folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel"]
    subprocess.run([*command, "-d", str(into)], cwd=folder, check=True, capture_output=True)
    (sdist,), (wheel,) = into.glob("*.tar.gz"), into.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(REPOSITORY, tmp_path_factory.mktemp("dist"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_every_file_of_the_package(built: tuple[Path, Path]) -> None:
    """Templates, styles, migrations, skills and icons too."""
    source = REPOSITORY / "src"
    files = {
        str(path.relative_to(source))
        for path in (source / PACKAGE).rglob("*")
        if path.is_file() and not LEFT_OUT & set(path.parts)
    }
    others = {Path(name).suffix for name in files} - {".py"}
    assert {".sql", ".html", ".css", ".md", ".svg"} <= others
    assert files - names_in(built[1]) == set()


def test_the_wheel_has_a_bill_of_materials_of_all_that_is_pinned(built: tuple[Path, Path]) -> None:
    (name,) = (name for name in names_in(built[1]) if ".dist-info/sboms/" in name)
    with zipfile.ZipFile(built[1]) as archive:
        bill = json.loads(archive.read(name))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    listed = {(part["name"], part["version"]) for part in bill["components"]}
    lines = (REPOSITORY / "requirements/runtime.txt").read_text().splitlines()
    pinned = [line.split(" ")[0].split("==") for line in lines if line[:1].isalpha()]
    assert listed == {(found.split("[")[0], version) for found, version in pinned}
    assert all(part["hashes"] for part in bill["components"])
    assert len({part["bom-ref"] for part in bill["components"]}) == len(listed) > 50


def test_the_sdist_has_the_pictures_of_the_readme_and_makes_the_same_wheel(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    pictures = re.findall(r"^!\[.+\]\((\S+)\)$", (unpacked / "README.md").read_text(), re.MULTILINE)
    assert len(pictures) == 2
    for name in pictures:
        assert (unpacked / name).stat().st_size < MAX_PICTURE_BYTES
    (tmp_path / "again").mkdir()
    _, again = build(unpacked, tmp_path / "again")
    assert names_in(again) == names_in(wheel)


def test_the_installed_wheel_serves_without_the_checkout(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    """Its own files come from the wheel; the packages that it needs come from this environment."""
    installed = tmp_path / "installed"
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(installed)
    paths = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    script = f"""
import sys
sys.path[:0] = {paths!r}
import {PACKAGE}
assert {PACKAGE}.__file__.startswith({str(installed)!r}), {PACKAGE}.__file__
from {PACKAGE}.__main__ import main
sys.argv = ["scs", "demo", "--duration", "1", "--speed", "50"]
main()
"""
    (empty := tmp_path / "empty").mkdir()
    # -S: without the .pth file that leads to the checkout.
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", script],
        cwd=empty,
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "adds three tasks" in done.stdout
