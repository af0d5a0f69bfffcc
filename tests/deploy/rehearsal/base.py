"""What stands in for the base image: Debian with its own Python, made by debootstrap."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

# Of Debian's releases the one whose own Python is that of the image.
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
# What python:X-slim has over Debian's smallest system, and for the other images busybox's wget.
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates,busybox"
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
PROGRAMS = ("debootstrap", "unshare", "nsenter", "mount", "chroot")


class CannotRehearseError(Exception):
    """Something the rehearsal needs is missing; the message says what, in one line."""


def require_programs() -> None:
    if os.geteuid() != 0:
        raise CannotRehearseError("needs root, for mounts and users of its own: sudo make rehearse")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise CannotRehearseError(
            f"needs {', '.join(missing)}; on Debian: apt-get install debootstrap util-linux coreutils"
        )


def find_suite(image: str) -> str:
    """Of `python:3.13-slim-bookworm`: the release of Debian that has Python 3.13."""
    version = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", image)
    if version is None or version[1] not in SUITES:
        raise CannotRehearseError(f"knows no Debian release with the Python of {image}")
    return SUITES[version[1]]


def find_mirror() -> str:
    """The mirror that this machine's apt takes Debian's main packages from."""
    wanted = "$(ORIGIN)|$(COMPONENT)|$(LABEL)|$(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as exc:
        raise CannotRehearseError(
            "needs apt, whose mirror debootstrap takes packages from"
        ) from exc
    for line in lines.splitlines():
        origin, component, label, address = line.split("|")
        if (origin, component, label) == ("Debian", "main", "Debian"):
            return address
    raise CannotRehearseError("apt knows no mirror of Debian; run apt-get update, or set one up")


def make_base(image: str, directory: Path) -> Path:
    """The root file system, made at the first call and kept in `directory`."""
    suite = find_suite(image)
    base = directory / f"base-{suite}"
    stamp = base.with_suffix(".made")
    if stamp.exists() and stamp.read_text() == PACKAGES:
        return base
    shutil.rmtree(base, ignore_errors=True)
    log = base.with_suffix(".log")
    command: list[str | Path] = [
        "debootstrap",
        "--variant=minbase",
        f"--include={PACKAGES}",
        suite,
        base,
        find_mirror(),
    ]
    with log.open("w") as out:
        done = subprocess.run(command, stdout=out, stderr=out, check=False)
    if done.returncode:
        raise CannotRehearseError(f"debootstrap failed: {log.read_text().strip().splitlines()[-1]}")
    stamp.write_text(PACKAGES)
    return base


def describe(base: Path) -> str:
    python = subprocess.run(
        ["chroot", base, "python", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    release = re.search(r'PRETTY_NAME="(.+)"', (base / "etc/os-release").read_text())
    assert release is not None
    return f"{release[1]} with {python}"
