"""`make prove`: agents on real servers under faults, a checker of what they saw, and planted bugs that it
must catch. Exits with 1 if a promise is broken or a planted bug is let through.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prove.checks.logs import count_early_timestamps
from prove.history import History, Outcome
from prove.planted_bugs import BUGS, find_all, find_in_the_program
from prove.promises import Broken
from prove.running import AGENTS, DISK_BYTES, run_setup
from prove.systems import SETUPS, Setup, has_compiler
from prove.windows import find_window, write_text, write_timeline

SHORT_S, NORMAL_S, LONG_S = 30.0, 60.0, 600.0
LONG_HOURS = 2.0
SHOWN = 3  # errors of a run whose windows are printed; the page has more
ON_PAGE = 20
_IN_NAMESPACE = "SCS_PROVE_NAMESPACE"


@dataclass
class Total:
    """What all runs together came to. `out`: where failures are kept; `kept`: where all histories are."""

    seed: int
    kept: Path | None = None
    out: Path | None = None
    calls: int = 0
    faults: int = 0
    runs: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, name: str, history: History) -> None:
        if self.kept is not None:
            self.kept.mkdir(parents=True, exist_ok=True)
            history.write(self.kept / f"{self.runs}-{_file_name(name)}.jsonl")
        self.calls += len(history.calls)
        self.faults += len(history.faults)
        self.runs += 1

    def keep(self, name: str, history: History, broken: Sequence[Broken], again: str) -> None:
        """Print and write what shows the errors, and how to run it again."""
        if self.out is None:
            self.out = Path(tempfile.mkdtemp(prefix="scs-prove-failed-"))
        windows = [find_window(history, one) for one in broken[:ON_PAGE]]
        for window in windows[:SHOWN]:
            print(write_text(window))
        stem = _file_name(name)
        history.write(self.out / f"{stem}.jsonl")
        write_timeline(windows, f"{name}, seed {self.seed}", self.out / f"{stem}.html")
        print(f"the history and a timeline are in {self.out}; run it again: {again}", flush=True)


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def main() -> int:
    options = parse()
    enter_namespace()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends the servers
    if not has_compiler():
        print("no faults of the clock: they need a C compiler")
    total = Total(options.seed, kept=options.keep)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="scs-prove-") as directory:
        if options.hours:
            run_for_hours(options, total, Path(directory))
        else:
            for setup in choose_setups(options):
                run_one(setup, total, Path(directory), options.seed, options.seconds)
    if not options.without_planted:
        run_planted(options, total)
    print(f"{total.calls} calls")
    print(f"{total.faults} faults")
    for failure in total.failures:
        print(f"BROKEN: {failure}")
    print("all promises kept" if not total.failures else f"{len(total.failures)} errors")
    return 1 if total.failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prove", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--seconds", type=float, help="of each set-up, with faults")
    parser.add_argument(
        "--setup", action="append", choices=[setup.name for setup in SETUPS], help="only this one"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="two minutes: one set-up")
    length.add_argument("--hours", type=float, nargs="?", const=LONG_HOURS, help="new seeds")
    parser.add_argument("--without-planted", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep every run's history")
    parser.add_argument("--bug", action="append", choices=[bug.name for bug in BUGS])
    options = parser.parse_args()
    if options.seconds is None:
        by_length = LONG_S if options.hours else NORMAL_S
        options.seconds = SHORT_S if options.short else by_length
    return options


def choose_setups(options: argparse.Namespace) -> list[Setup]:
    if options.bug:
        return []
    if options.setup:
        return [setup for setup in SETUPS if setup.name in options.setup]
    return [SETUPS[1]] if options.short else list(SETUPS)


def run_for_hours(options: argparse.Namespace, total: Total, directory: Path) -> None:
    deadline = time.monotonic() + options.hours * 3600
    for number in range(sys.maxsize):
        for setup in choose_setups(options):
            if time.monotonic() > deadline:
                return
            run_one(setup, total, directory, options.seed + number, options.seconds)


def run_one(setup: Setup, total: Total, directory: Path, seed: int, seconds: float) -> None:
    started = time.monotonic()
    own = Path(tempfile.mkdtemp(dir=directory))
    with small_disk(setup) as disk:
        history, broken, defects = run_setup(setup, own, seed, seconds, disk)
    shutil.rmtree(own, ignore_errors=True)
    total.add(setup.name, history)
    outcomes = [sum(call.outcome is one for call in history.calls) for one in Outcome]
    faults = ", ".join(sorted({fault.name for fault in history.faults}))
    print(
        f"{setup.name}: {AGENTS} agents, {len(history.calls)} calls ({outcomes[0]} ok,"
        f" {outcomes[1]} refused, {outcomes[2]} without an answer), {len(history.faults)} faults"
        f" ({faults}), {count_early_timestamps(history)} timestamps against the order of seq,"
        f" {len(broken)} errors, {time.monotonic() - started:.0f} s",
        flush=True,
    )
    again = f'python -m prove --seed {seed} --seconds {seconds:g} --setup "{setup.name}"'
    if broken or defects:
        total.failures += [f"{setup.name}: {one}" for one in broken]
        total.failures += [f"{setup.name}: {one}" for one in defects]
        total.keep(setup.name, history, broken, f"{again} --without-planted")


def run_planted(options: argparse.Namespace, total: Total) -> None:
    """All bugs have to be caught, by an error that shows them; the program itself shows none."""
    bugs = [bug for bug in BUGS if not options.bug or bug.name in options.bug]
    caught = 0
    for found in find_all(bugs, options.seed):
        total.add(found.bug.name, found.history)
        name, took = found.bug.name, f"{found.calls} calls, {found.seconds:.0f} s"
        if found.broken is None:
            print(f"  let through: {name} ({took})", flush=True)
            total.failures.append(f"the planted bug was let through: {name}")
            continue
        caught += 1
        print(f'  {name}: caught as "{found.broken.promise}" after {took}', flush=True)
    if not options.short:
        for bug in bugs:
            found = find_in_the_program(bug, options.seed)
            total.add(f"without {bug.name}", found.history)
            if found.broken is not None:
                total.failures.append(f"without a planted bug: {found.broken}")
                again = f'python -m prove --seed {options.seed} --bug "{bug.name}"'
                total.keep(f"without {bug.name}", found.history, [found.broken], again)
    print(f"planted bugs caught: {caught} of {len(bugs)}", flush=True)


def enter_namespace() -> None:
    """Start anew with mounts of its own, where that is allowed: a small disk needs a mount."""
    unshare = shutil.which("unshare")
    if _IN_NAMESPACE in os.environ:
        return
    if os.geteuid() != 0 or unshare is None or not _can_unshare(unshare):
        print("no faults of the disk: they need root and a mount namespace")
        return
    os.environ[_IN_NAMESPACE] = "1"
    os.execv(unshare, [unshare, "-m", sys.executable, "-m", "prove", *sys.argv[1:]])


def _can_unshare(unshare: str) -> bool:
    return subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def small_disk(setup: Setup) -> Iterator[Path | None]:
    """A file system that can be filled; None where there is none."""
    if _IN_NAMESPACE not in os.environ or setup.store != "SQLite":
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="scs-disk-") as directory:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", directory]
        subprocess.run(mount, check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", "-l", directory], check=True)


if __name__ == "__main__":
    sys.exit(main())
