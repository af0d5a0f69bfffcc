"""`make bench`: speed of every path, start and memory of a server started for the purpose, beside bars.

`make bench BASE=<revision>` compares this checkout with another revision; `make bench-docs` writes the
figures of docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
import uvloop

from bench import footprint, shares, stages, throughput
from bench.bars import compare, judge
from bench.chart import draw
from bench.results import (
    CHART,
    PAGE,
    RESULTS,
    Run,
    iterate_sections,
    replace_between_markers,
    tables,
    to_json,
)
from bench.revisions import Revision, RevisionError, describe_checkout, open_revision
from bench.servers import StartError, serve, warm_environment
from bench.throughput import Subject

ROUNDS, SECONDS, STARTS = 5, 2.0, 5
MISTAKEN = 2  # the same as argparse's


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; ends the process for wrong ones."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--base", metavar="REVISION", help="compare with this revision of git")
    parser.add_argument("--rounds", type=_at_least_one, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--seconds", type=_seconds, default=SECONDS, help="of a path in a round")
    parser.add_argument("--starts", type=_at_least_one, default=STARTS, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--write", action="store_true", help="write them to docs/performance.*")
    options = parser.parse_args(arguments)
    if options.write and options.base:
        parser.error("--write is for a run without --base.")
    return options


def _at_least_one(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError("must be between 1 and 1000")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be between 0.01 and 3600")
    return value


def _tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> Run:
    """Measure everything. Raises RevisionError, and StartError for a server that does not start."""
    load_average = os.getloadavg()[0]
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scs-bench-cache-")))
        new = describe_checkout()
        old = stack.enter_context(open_revision(options.base, cache)) if options.base else None
        if old is not None and old.unmet:
            _tell(
                f"{old.name} requires what is not installed, so its figures may not be its own:"
                f" {', '.join(old.unmet)}"
            )
        sources = {"this server": new.source} | ({} if old is None else {old.name: old.source})
        started = footprint.measure(sources, cache, times=options.starts, tell=_tell)
        subjects = uvloop.run(_measure_paths(cache, new, old, options))
        targets = [target for subject in subjects[:2] for target in subject.targets]
        is_whole = old is None
        return Run(
            revision=new,
            load_average=load_average,
            rounds=options.rounds,
            seconds=options.seconds,
            targets=targets,
            started=started,
            bars=judge(targets, started[0], started[1]),
            base=old,
            changes=() if old is None else compare(subjects[1].targets, subjects[2].targets),
            shares=uvloop.run(shares.measure(cache, 2 * options.seconds)) if is_whole else {},
            stages=stages.measure(cache, min(3, options.starts)) if is_whole else (),
        )


async def _measure_paths(
    cache: Path, new: Revision, old: Revision | None, options: argparse.Namespace
) -> list[Subject]:
    """The bare routes, this server, and the one of the other revision."""
    with ExitStack() as stack:
        subjects: list[Subject] = []

        def start(*program: str, revision: Revision | None = None) -> throughput.Server:
            data_dir = stack.enter_context(tempfile.TemporaryDirectory())
            environment = warm_environment(cache, None if revision is None else revision.source)
            return stack.enter_context(serve(data_dir, program=program, environment=environment))

        for revision in (new, old):
            if revision is not None:
                server = start("shared_context_server", revision=revision)
                subjects.append(await _make_subject(revision, server))
        bare = stack.enter_context(_serve_bare(cache))
        targets = await throughput.make_bare_targets(bare, subjects[0].server, subjects[0].targets)
        subjects.insert(0, Subject("bare routes", bare, targets))
        await throughput.measure(
            subjects, rounds=options.rounds, seconds=options.seconds, tell=_tell
        )
    return subjects


async def _make_subject(revision: Revision, server: throughput.Server) -> Subject:
    """The revision's server with the paths that it answers: another revision need not have all."""
    try:
        targets = await throughput.make_targets(server)
    except httpx.HTTPError as exc:
        raise RevisionError(f"{revision.name} is asked in vain: {exc}") from exc
    if revision.source is not None:
        answered = [target for target in targets if await throughput.is_answered(server, target)]
        for target in targets:
            if target not in answered:
                _tell(f"{revision.name} does not answer, and is not measured on: {target.name}")
        targets = answered
    return Subject(revision.name, server, targets)


@contextlib.contextmanager
def _serve_bare(cache: Path) -> Iterator[throughput.Server]:
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(__file__).parents[1]
        environment = warm_environment(cache, repository)
        with serve(folder, program=("bench.bare",), environment=environment) as server:
            yield server


def _end_as_by_interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    options = parse()
    # By either, servers and folders are put away; what starts this may have had SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _end_as_by_interrupt)
    try:
        measured = run(options)
    except (RevisionError, StartError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        sys.exit(MISTAKEN)
    except KeyboardInterrupt:
        sys.exit(130)
    text = to_json(measured)
    results = json.loads(text)
    print(tables(results))
    if options.json is not None:
        options.json.write_text(text, encoding="utf-8")
    if options.write:
        write_docs(text)


def write_docs(text: str) -> None:
    """The figures, the chart, and the tables of the page."""
    results = json.loads(text)
    page = PAGE.read_text(encoding="utf-8")
    for name, section in iterate_sections(results):
        page = replace_between_markers(page, name, section)
    RESULTS.write_text(text, encoding="utf-8")
    CHART.write_text(draw(results), encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
