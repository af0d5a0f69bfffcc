"""Processes with what a container has: a root file system of its own, mounts, a user, no capabilities.

Each has its own mount and process namespace, so that it is process 1, and shares this machine's
network. Needs root, in a mount namespace of its own (see __main__).
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

POLL_S = 0.1
START_S = 20.0
# What stands in front of the command until it runs.
_LAUNCHERS = {
    "unshare",
    "sh",
    "dash",
    "mount",
    "mkdir",
    "touch",
    "ln",
    "chroot",
    "setpriv",
    "realpath",
    "dirname",
}
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_DEVICES = ("null", "zero", "full", "random", "urandom")
TMPFS_OPTIONS = "nosuid,nodev,noexec"  # Docker's


@dataclass(frozen=True)
class Mount:
    """A directory or a file of this machine, or with `tmpfs` the options of a new one in memory."""

    target: str
    source: Path | None = None
    tmpfs: str = ""
    is_read_only: bool = False

    def commands(self, root: Path) -> list[str]:
        # Links of the root file system, such as /var/run, lead to places in it.
        find = f'place={root}"$(chroot {root} realpath -m {shlex.quote(self.target)})"'
        if self.source is None:
            return [find, 'mkdir -p "$place"', f'mount -t tmpfs -o {self.tmpfs} tmpfs "$place"']
        make = "touch" if self.source.is_file() else "mkdir"
        source = shlex.quote(str(self.source))
        commands = [
            find,
            'mkdir -p "$(dirname "$place")"',
            f'[ -e "$place" ] || {make} "$place"',
            f'mount --rbind {source} "$place"',
        ]
        if self.is_read_only:
            commands.append('mount -o remount,bind,ro "$place"')
        return commands


@dataclass(frozen=True)
class Spec:
    """How a process is started."""

    name: str
    layers: tuple[Path, ...]  # its root file system, the lowest first; they stay as they are
    command: list[str]
    environment: dict[str, str]
    user: str = "0:0"
    workdir: str = "/"
    mounts: tuple[Mount, ...] = ()
    is_read_only: bool = False
    is_confined: bool = True  # no capabilities, no new privileges
    stop_signal: str = "SIGTERM"
    grace_s: float = 10.0
    stdin: Path = Path(os.devnull)


def make_overlay(layers: Sequence[Path], directory: Path) -> Path:
    """A root file system of these layers, and of `directory/upper`, which takes what is written."""
    upper, work, root = (directory / name for name in ("upper", "work", "root"))
    for place in (upper, work, root):
        place.mkdir(parents=True, exist_ok=True)
    lower = ":".join(str(layer) for layer in reversed(layers))
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
    return root


def confine(user: str) -> list[str]:
    """The beginning of a command that then runs as this user and can do nothing more."""
    uid, _, gid = user.partition(":")
    drops = ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]
    return ["setpriv", f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups", *drops]


@dataclass
class Container:
    """A running process, and what it writes."""

    spec: Spec
    directory: Path
    process: subprocess.Popen[bytes] = field(init=False)
    pid: int = field(init=False)
    root: Path = field(init=False)
    most_memory: int = 0  # bytes, of all its processes
    most_threads: int = 0

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.root = make_overlay(self.spec.layers, self.directory)
        with self.log_path.open("ab") as log, self.spec.stdin.open("rb") as stdin:
            # As Docker does, so that the process may open /dev/stdout.
            os.fchown(log.fileno(), *self._owner)
            self.process = subprocess.Popen(
                [*_NAMESPACES, "sh", "-euc", self._script()],
                env=self.spec.environment,
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._find_first_process()

    @property
    def _owner(self) -> tuple[int, int]:
        uid, _, gid = self.spec.user.partition(":")
        return int(uid), int(gid or uid)

    @property
    def log_path(self) -> Path:
        return self.directory / "log"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def command(self) -> list[str]:
        """What is executed in the container: the command, as its user."""
        return [*(confine(self.spec.user) if self.spec.is_confined else []), *self.spec.command]

    def _script(self) -> str:
        root = self.root
        lines = [f"mount -t proc proc {root}/proc"]
        lines += [f"mount -t tmpfs -o size=64k,mode=755 tmpfs {root}/dev"]
        for device in _DEVICES:
            lines += [
                f"touch {root}/dev/{device}",
                f"mount --bind /dev/{device} {root}/dev/{device}",
            ]
        lines.append(f"ln -s /proc/self/fd {root}/dev/fd")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            lines.append(f"ln -s /proc/self/fd/{number} {root}/dev/{name}")
        shared_memory = Mount("/dev/shm", tmpfs=f"size=64m,mode=1777,{TMPFS_OPTIONS}")
        if not any(mount.target == "/dev/shm" for mount in self.spec.mounts):
            lines += shared_memory.commands(root)
        for mount in self.spec.mounts:
            lines += mount.commands(root)
        if self.spec.is_read_only:
            lines.append(f"mount -o remount,ro,bind {root}")
        workdir = shlex.quote(self.spec.workdir)
        enter = f'cd {workdir}; exec "$@"'
        lines.append(
            f"exec chroot {root} sh -euc {shlex.quote(enter)} sh {shlex.join(self.command)}"
        )
        return "\n".join(lines)

    def _find_first_process(self) -> int:
        deadline = time.monotonic() + START_S
        launcher = psutil.Process(self.process.pid)
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                for child in launcher.children():
                    if child.name() not in _LAUNCHERS:
                        return child.pid
            except psutil.NoSuchProcess:
                break
            time.sleep(POLL_S / 10)
        return self.process.pid  # it ended at once, or is a shell itself

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def execute(
        self, command: list[str], *, timeout_s: float = 60.0, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container and wait for its end, as `docker exec` does."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wd=/"]
        return subprocess.run(
            [*enter, "--", *confine(self.spec.user), *command],
            env=self.spec.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **more,
        )

    def measure(self) -> None:
        """Note the memory and the threads of all its processes, if they are more than before."""
        try:
            first = psutil.Process(self.pid)
            family = [first, *first.children(recursive=True)]
            # Proportional, so that pages shared by several processes count once.
            memory = sum(process.memory_full_info().pss for process in family)
            threads = sum(process.num_threads() for process in family)
        except psutil.Error:
            return
        self.most_memory = max(self.most_memory, memory)
        self.most_threads = max(self.most_threads, threads)

    def wait(self) -> int:
        return self.process.wait()

    def stop(self, *, grace_s: float | None = None) -> tuple[int, float]:
        """Send the stop signal, then SIGKILL when the grace period is over: exit code and seconds."""
        self.measure()
        began = time.monotonic()
        if self.is_running:
            os.kill(self.pid, signal.Signals[self.spec.stop_signal])
        try:
            code = self.process.wait(self.spec.grace_s if grace_s is None else grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = -signal.SIGKILL
        return code, time.monotonic() - began

    def kill(self) -> None:
        """End it, with all its processes, if it still runs."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()


def run_to_end(spec: Spec, directory: Path) -> str:
    """Run a container that ends by itself; what it printed. Raises RuntimeError if it fails."""
    container = Container(spec, directory)
    if container.wait():
        raise RuntimeError(
            f"{spec.name}: {shlex.join(spec.command)[:200]}\n{container.log[-4000:]}"
        )
    return container.log
