"""Bugs that are planted into a copy of the program, to show that the prover notices them.

Each is a patch in prove/planted. A short traffic, aimed at what the bug breaks, runs in rounds against
servers of the patched copy, until the checker reports one of the errors that show the bug.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prove import rounds
from prove.checks import check
from prove.clients import Agent, Run
from prove.history import History
from prove.promises import Broken, Promise
from prove.running import audit
from prove.systems import ADMIN_API_KEY, API_KEY, Setup, System, open_system

CHECKOUT = Path(__file__).parent.parent
PATCHES = Path(__file__).parent / "planted"
AT_ONCE = 2
"""Bugs that are looked for at the same time."""

PATIENCE_S = 60.0
"""How long the traffic goes on before the bug counts as not caught."""

BOUND_S = 3.0
AGENTS = 6

ONE = Setup("SQLite", 1)


@dataclass(frozen=True)
class Bug:
    """A planted bug. `errors`: those that show it. `round`: the traffic that meets it."""

    name: str
    errors: frozenset[Promise]
    round: Callable[[Sequence[Agent]], Awaitable[None]]
    setup: Setup = ONE

    @property
    def patch(self) -> Path:
        return PATCHES / f"{self.name.replace(' ', '-')}.patch"


BUGS = (
    Bug(
        "ack before commit",
        frozenset({Promise.OWN_WRITE_NOT_READ, Promise.LOST}),
        rounds.write_and_read,
    ),
    Bug("seq from a plain counter", frozenset({Promise.GAP}), rounds.write_and_be_refused),
    Bug("wake-up lost", frozenset({Promise.NOT_WOKEN}), rounds.wait_while_others_write),
    Bug(
        "idempotency record after the message",
        frozenset({Promise.DOUBLED}),
        rounds.write_twice_at_once,
    ),
    Bug("cursor off by one", frozenset({Promise.GAP}), rounds.read_in_pages),
    Bug("fencing not compared", frozenset({Promise.STALE_TOKEN}), rounds.hand_a_lease_over),
    Bug("private rows in a count", frozenset({Promise.PRIVATE_SEEN}), rounds.count_beside_secrets),
    Bug("expired entry served", frozenset({Promise.EXPIRED_SERVED}), rounds.let_entries_expire),
    Bug(
        "change read past a gap",
        frozenset({Promise.STREAM_GAP}),
        rounds.follow_everything,
        Setup("PostgreSQL", 1),
    ),
)


@dataclass(frozen=True)
class Found:
    """How a bug was caught: the first error that shows it; None if it was let through."""

    bug: Bug
    broken: Broken | None
    history: History
    seconds: float

    @property
    def calls(self) -> int:
        return len(self.history.calls)


def find_all(bugs: Sequence[Bug], seed: int) -> Iterable[Found]:
    """Plant each bug and look for it; in the order in which they were given."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield from threads.map(lambda bug: find(bug, seed), bugs)


def find(bug: Bug, seed: int) -> Found:
    with plant(bug.patch) as source:
        return _look(bug, seed, source, lambda broken: broken.promise in bug.errors)


def find_in_the_program(bug: Bug, seed: int) -> Found:
    """Run the same traffic against the program as it is, once; `broken` is then a false alarm, or a
    bug that nobody planted."""
    return _look(bug, seed, None, lambda broken: True)


def _look(bug: Bug, seed: int, source: Path | None, shows: Callable[[Broken], bool]) -> Found:
    started = time.monotonic()
    patience_s = 0.0 if source is None else PATIENCE_S
    with (
        tempfile.TemporaryDirectory(prefix="scs-planted-") as directory,
        open_system(bug.setup, Path(directory), source=source) as system,
    ):
        history, broken = asyncio.run(_traffic(bug, system, seed, shows, patience_s))
    return Found(bug, broken, history, time.monotonic() - started)


async def _traffic(
    bug: Bug, system: System, seed: int, shows: Callable[[Broken], bool], patience_s: float
) -> tuple[History, Broken | None]:
    run = Run(system.urls, API_KEY, ADMIN_API_KEY, system.database_url)
    async with AsyncExitStack() as stack:
        agents = [Agent(run, f"agent-{number}", seed=seed, home=number) for number in range(AGENTS)]
        auditor = Agent(run, "auditor", seed=seed, ways=("REST",), is_admin=True)
        for agent in (*agents, auditor):
            stack.push_async_callback(agent.aclose)
        deadline = time.monotonic() + patience_s
        while True:
            await bug.round(agents)
            await audit(auditor)
            found = check(run.history, bound_s=BOUND_S)
            broken = next((one for one in found if shows(one)), None)
            if broken is not None or time.monotonic() > deadline:
                return run.history, broken


@contextmanager
def plant(patch: Path) -> Iterator[Path]:
    """A copy of the program's source with the patch; the directory to import it from."""
    with tempfile.TemporaryDirectory(prefix="scs-patched-") as directory:
        shutil.copytree(CHECKOUT / "src", Path(directory) / "src")
        apply_patch(patch, Path(directory))
        yield Path(directory) / "src"


def apply_patch(patch: Path, directory: Path) -> None:
    """Raises CalledProcessError, with what git says, if it does not fit."""
    # Without what a hook of git sets: the directory belongs to no repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(
        # One line of context is enough, so that other changes nearby do not matter.
        ["git", "apply", "-C1", patch],
        cwd=directory,
        env=env | {"GIT_CEILING_DIRECTORIES": str(directory.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
