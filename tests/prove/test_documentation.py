"""docs/reliability.md names what the prover checks, does and plants."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from prove.clients import Run
from prove.faults import Faults
from prove.planted_bugs import BUGS, CHECKOUT
from prove.promises import MEANING, Promise
from prove.systems import Setup, System

PAGE = (CHECKOUT / "docs/reliability.md").read_text(encoding="utf-8")


def names_of_faults(setup: Setup, **parts: Any) -> set[str]:
    system = System(setup, [], **parts)
    return set(Faults(system, Run([], "", ""), [], random.Random(0)).kinds)


def test_every_promise_is_listed_with_what_breaks_it() -> None:
    rows = dict(re.findall(r"^\| ([a-z ]+) \| (.+) \|$", PAGE, re.MULTILINE))
    for promise in Promise:
        meaning = rows[promise].replace("`", "").lower()
        assert meaning.startswith(MEANING[promise].rstrip(".").lower())


def test_every_fault_is_described() -> None:
    some: Any = object()
    faults = names_of_faults(Setup("SQLite", 3), disk=Path(), clock=some)
    faults |= names_of_faults(Setup("PostgreSQL", 3), cluster=some, database_relay=some)
    for name in faults:
        assert re.search(rf"^\| [^|]*\b{name}\b", PAGE, re.MULTILINE), name


def test_every_planted_bug_is_listed_with_an_error_that_shows_it() -> None:
    for bug in BUGS:
        found = re.search(rf"^\| {bug.name}: [^|]+ \| ([^|]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
        assert found is not None, bug.name
        assert Promise(found[1]) in bug.errors
