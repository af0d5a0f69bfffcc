"""Search at any size, beside its bars: `make bench-search`.

For each size, store and number of processes: latency over REST, the first search after a restart,
recall beside a scan of all texts with the same scorer, by kind of query and by language, the memory
that a process adds, and what searches cost those who add messages. Texts and queries are those of
`bench.search_texts`.

Messages are written to the store before the server starts. A search counts only once the server says
that it covers all messages; how long that takes is a row of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvloop

from bench.search_texts import KINDS, LANGUAGES, SearchQuery, Text, list_texts, make_queries
from bench.servers import Server, serve, warm_environment
from bench.tables import print_table
from bench.throughput import CONTENT, HEADERS
from shared_context_server.models import Access, AuditEntry, Caller, Permission, Visibility
from shared_context_server.services.late_imports import SEARCH, import_late
from shared_context_server.services.scoring import Query, score_texts
from shared_context_server.services.terms import index_terms
from shared_context_server.settings import Settings
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import open_storage
from shared_context_server.storage.contract import NewMessage, NewSession
from tests.postgres import open_cluster

SIZES = (10_000, 100_000)
FIRST = 10  # results that recall looks at
NEAR = 0.5  # of a score: how much the weights of words may differ between the index and the scan
FILL_STEP = 500
ADD_SECONDS = 5.0
SEARCHERS = 2
READY_PATIENCE_S = 900.0
WRITER = Caller(
    agent_id="bench",
    agent_type="generic",
    permissions=frozenset({Permission.READ, Permission.WRITE}),
    key_id="bench",
)


@dataclass(frozen=True)
class Goal:
    """A bar by size: 10,000, 100,000 and a million messages."""

    name: str
    unit: str
    at_most: tuple[float, float, float] | None = None
    at_least: tuple[float, float, float] | None = None

    def bar(self, size: int) -> tuple[str, float]:
        place = 0 if size <= 10_000 else 1 if size <= 100_000 else 2
        if self.at_most is not None:
            return "≤", self.at_most[place]
        assert self.at_least is not None
        return "≥", self.at_least[place]

    def is_met(self, value: float, size: int) -> bool:
        sign, bar = self.bar(size)
        return value <= bar if sign == "≤" else value >= bar


GOALS = {
    "p95": Goal("p95 over REST, one typo in three words", "ms", at_most=(8, 15, 40)),
    "recall": Goal(f"recall@{FIRST} of an exhaustive scan", "", at_least=(0.99, 0.98, 0.98)),
    "first": Goal("first search after a restart", "s", at_most=(0.1, 0.1, 0.2)),
    "memory": Goal("memory a process adds", "MB", at_most=(20, 40, 100)),
    "rate": Goal("add_message beside none indexed", "x", at_least=(0.95, 0.95, 0.95)),
    "p99": Goal("p99 of add_message while searches run, beside none", "x", at_most=(2, 2, 2)),
}


@dataclass
class Report:
    """The figures of one deployment: its store, its processes, and the size of its session."""

    name: str
    size: int
    figures: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    recall: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    meant: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="also 1000000")
    parser.add_argument("--stores", nargs="+", choices=("sqlite", "postgres"), default=["sqlite"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--queries", type=int, default=200, help="for latency")
    parser.add_argument("--scans", type=int, help="for recall, of each kind; default by size")
    parser.add_argument("--sessions", type=int, default=0, help="also this many, searched in turns")
    parser.add_argument("--session-size", type=int, default=20_000, help="messages of each of them")
    parser.add_argument(
        "--unindexed",
        metavar="SETTING=VALUE",
        help="starts a server without an index, to compare add_message with",
    )
    return parser.parse_args()


# Filling


async def fill(settings: Settings, session_id: str, texts: Sequence[Text]) -> dict[int, int]:
    """Make a session with these messages; return the position of the text of each seq."""
    places: dict[int, int] = {}
    async with open_storage(settings) as store:
        now = utc_now()
        new = NewSession(session_id, "search bench", {}, Access.OPEN, WRITER.agent_id, now)
        made = AuditEntry(event_type="session_created", agent_id=WRITER.agent_id, timestamp=now)
        await store.sessions.create(new, made)
        for start in range(0, len(texts), FILL_STEP):
            added = await asyncio.gather(
                *(
                    store.messages.append(_message(session_id, text.content), _allow)
                    for text in texts[start : start + FILL_STEP]
                )
            )
            places |= {one.seq: start + number for number, one in enumerate(added)}
    return places


def _message(session_id: str, content: str) -> NewMessage:
    return NewMessage(
        session_id, WRITER, content, Visibility.PUBLIC, (), {}, None, created_at=utc_now()
    )


def _allow(_: object) -> None:
    pass


# Calls


@asynccontextmanager
async def connect(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{server.port}", headers=HEADERS, timeout=120
    ) as client:
        yield client


async def call(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.post(f"/mcp/tool/{tool}", json=arguments)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def search(client: httpx.AsyncClient, session_id: str, query: str) -> dict[str, Any]:
    return await call(client, "search_context", session_id=session_id, query=query, limit=FIRST)


async def wait_until_covered(client: httpx.AsyncClient, session_id: str) -> float | None:
    """Search until an answer covers all messages; return the seconds, None if it never did."""
    started = time.monotonic()
    while time.monotonic() - started < READY_PATIENCE_S:
        if (await search(client, session_id, "needle"))["exhaustive"]:
            return time.monotonic() - started
        await asyncio.sleep(0.2)
    return None


async def time_searches(
    client: httpx.AsyncClient, session_id: str, queries: Sequence[SearchQuery]
) -> list[float]:
    """Seconds of each, one at a time."""
    taken = []
    for query in queries:
        started = time.perf_counter()
        await search(client, session_id, query.query)
        taken.append(time.perf_counter() - started)
    return taken


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


# Recall


class Scan:
    """Scores of all texts, by the server's own scorer, with its weights of rare words."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self._contents = [text.content for text in texts]
        self._counted: dict[str, int] = defaultdict(int)
        for content in self._contents:
            for term in index_terms(content):
                self._counted[term] += 1

    def scores(self, text: str) -> list[float]:
        query = Query(text)
        query.weigh_by_counts(lambda term: self._counted.get(term, 0), len(self._contents))
        return score_texts(query, self._contents)


async def measure_recall(
    client: httpx.AsyncClient,
    session_id: str,
    queries: Sequence[SearchQuery],
    scan: Scan,
    places: dict[int, int],
    report: Report,
) -> None:
    for query in queries:
        scores = await asyncio.to_thread(scan.scores, query.query)
        best = [score for score in sorted(scores, reverse=True)[:FIRST] if score >= 60]
        answer = await search(client, session_id, query.query)
        found = [places[result["message"]["seq"]] for result in answer["results"]]
        report.meant[query.kind].append(query.target in found)
        if best:
            good = sum(scores[place] >= best[-1] - NEAR for place in found)
            share = min(1.0, good / len(best))
            report.recall[query.kind].append(share)
            report.recall[query.language].append(share)


# What searches cost others


async def measure_adds(client: httpx.AsyncClient, seconds: float) -> list[float]:
    """Add messages one after the other to a session of their own; seconds of each."""
    session_id = (await call(client, "create_session", purpose="adds"))["session_id"]
    taken = []
    ends_at = time.perf_counter() + seconds
    while (started := time.perf_counter()) < ends_at:
        await call(client, "add_message", session_id=session_id, content=CONTENT)
        taken.append(time.perf_counter() - started)
    return taken


@asynccontextmanager
async def searching(
    server: Server, session_id: str, queries: Sequence[SearchQuery]
) -> AsyncIterator[None]:
    """SEARCHERS search without a rest, each on its own connection."""

    async def run(number: int) -> None:
        async with connect(server) as client:
            place = number
            while True:
                await search(client, session_id, queries[place % len(queries)].query)
                place += SEARCHERS

    tasks = [asyncio.create_task(run(number)) for number in range(SEARCHERS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def memory_mb(server: Server) -> float:
    """Of the process that serves, or of the largest of its workers."""
    process = psutil.Process(server.pid)
    family = [process, *process.children(recursive=True)]
    return max(float(one.memory_info().rss) for one in family) / 1_048_576


# One deployment


@contextmanager
def open_server(directory: str, url: str | None, workers: int, **settings: str) -> Iterator[Server]:
    if url is not None:
        settings["DATABASE_URL"] = url
    options = ["--workers", str(workers)] if workers > 1 else []
    # With compiled modules, as an installation has: the first search imports some.
    environment = warm_environment(Path(directory) / "compiled")
    with serve(directory, *options, environment=environment, **settings) as server:
        yield server


async def measure(
    report: Report,
    directory: str,
    url: str | None,
    workers: int,
    texts: Sequence[Text],
    arguments: argparse.Namespace,
) -> None:
    size = report.size
    session_id = "session_5ea4c4be4c400001"
    settings = Settings(data_dir=Path(directory)) if url is None else Settings(database_url=url)
    started = time.monotonic()
    places = await fill(settings, session_id, texts)
    report.notes["written in"] = f"{time.monotonic() - started:.0f} s"
    random_ = random.Random(size)
    typos = make_queries(texts, "one typo", arguments.queries, random_)
    with open_server(directory, url, workers) as server:
        async with connect(server) as client:
            covered = await wait_until_covered(client, session_id)
            report.notes["first covered after"] = "never" if covered is None else f"{covered:.1f} s"
    with open_server(directory, url, workers) as server:
        async with connect(server) as client:
            await call(client, "get_messages", session_id=session_id)
            plain_mb = memory_mb(server)
            first = await time_searches(client, session_id, typos[:1])
            report.figures["first"] = first[0]
            covered = await wait_until_covered(client, session_id)
            report.notes["covered after a restart"] = (
                "never" if covered is None else f"{covered:.1f} s"
            )
            await time_searches(client, session_id, typos[:10])
            taken = await time_searches(client, session_id, typos)
            report.figures["p95"] = quantile(taken, 0.95) * 1000
            report.notes["p50"] = f"{statistics.median(taken) * 1000:.1f} ms"
            report.figures["memory"] = memory_mb(server) - plain_mb
            alone = await measure_adds(client, ADD_SECONDS)
            async with searching(server, session_id, typos):
                beside = await measure_adds(client, ADD_SECONDS)
            report.figures["p99"] = quantile(beside, 0.99) / quantile(alone, 0.99)
            await _measure_recalls(client, session_id, texts, places, report, arguments)
    if arguments.unindexed:
        await _compare_adds(report, directory, url, workers, arguments.unindexed)


async def _measure_recalls(
    client: httpx.AsyncClient,
    session_id: str,
    texts: Sequence[Text],
    places: dict[int, int],
    report: Report,
    arguments: argparse.Namespace,
) -> None:
    await import_late(SEARCH)
    scan = await asyncio.to_thread(Scan, texts)
    count = arguments.scans or max(2, 150_000 // report.size)
    random_ = random.Random(report.size + 1)
    for kind in KINDS:
        queries = make_queries(texts, kind, min(count, 25), random_)
        await measure_recall(client, session_id, queries, scan, places, report)
    report.figures["recall"] = statistics.mean(
        share for kind in KINDS for share in report.recall[kind]
    )


async def _compare_adds(
    report: Report, directory: str, url: str | None, workers: int, setting: str
) -> None:
    """The rate of add_message with the index and without it, in turns."""
    name, _, value = setting.partition("=")
    rates: dict[bool, list[float]] = {True: [], False: []}
    for is_indexed in (True, False) * 3:
        further = {} if is_indexed else {name: value}
        with open_server(directory, url, workers, **further) as server:
            async with connect(server) as client:
                await measure_adds(client, 0.5)
                rates[is_indexed].append(len(await measure_adds(client, ADD_SECONDS)))
    report.figures["rate"] = statistics.median(rates[True]) / statistics.median(rates[False])


async def measure_turns(
    directory: str, url: str | None, count: int, size: int, queries: int
) -> tuple[float, float]:
    """The median of a first search of each of many sessions, and of later rounds, ms."""
    texts = list_texts(size, random.Random(7))
    settings = Settings(data_dir=Path(directory)) if url is None else Settings(database_url=url)
    names = [f"session_5ea4c4be4c41{number:04}" for number in range(count)]
    for name in names:
        await fill(settings, name, texts)
    asked = make_queries(texts, "one typo", max(count, queries), random.Random(8))
    rounds: list[list[float]] = []
    with open_server(directory, url, 1) as server:
        async with connect(server) as client:
            for name in names:
                await wait_until_covered(client, name)
        for number in range(3):
            async with connect(server) as client:
                rounds.append([])
                for name, query in zip(names, asked[number:] + asked[:number], strict=False):
                    rounds[-1] += await time_searches(client, name, [query])
    return statistics.median(rounds[0]) * 1000, statistics.median(rounds[-1]) * 1000


# The tables


def show(report: Report) -> None:
    rows = []
    for key, goal in GOALS.items():
        sign, bar = goal.bar(report.size)
        value = report.figures.get(key)
        shown = "not measured" if value is None else f"{value:.3g} {goal.unit}".strip()
        verdict = "" if value is None else "met" if goal.is_met(value, report.size) else "missed"
        rows.append([goal.name, shown, f"{sign} {bar:g} {goal.unit}".strip(), verdict])
    rows += [[name, note, "", ""] for name, note in report.notes.items()]
    print_table(f"{report.size:,} messages, {report.name}", ["what", "measured", "bar", ""], rows)
    print_table(
        "Recall beside an exhaustive scan",
        ["queries", "recall", "the meant message in the first ten", "scans"],
        [
            [
                name,
                f"{statistics.mean(report.recall[name]):.3f}",
                f"{statistics.mean(report.meant[name]):.2f}" if name in report.meant else "",
                str(len(report.recall[name])),
            ]
            for name in (*KINDS, *LANGUAGES)
            if report.recall[name]
        ],
    )


def main() -> None:
    arguments = parse()
    for size in arguments.sizes:
        texts = list_texts(size, random.Random(size))
        for store in arguments.stores:
            for workers in arguments.workers:
                with ExitStack() as stack:
                    directory = stack.enter_context(tempfile.TemporaryDirectory())
                    url = None
                    if store == "postgres":
                        url = stack.enter_context(open_cluster()).create_database("search")
                    name = f"{store}, {workers} process{'es' if workers > 1 else ''}"
                    report = Report(name, size)
                    uvloop.run(measure(report, directory, url, workers, texts, arguments))
                    show(report)
    if arguments.sessions:
        with tempfile.TemporaryDirectory() as directory:
            first, later = uvloop.run(
                measure_turns(
                    directory, None, arguments.sessions, arguments.session_size, arguments.queries
                )
            )
        print_table(
            f"{arguments.sessions} sessions of {arguments.session_size:,} messages, in turns",
            ["round", "median"],
            [["first", f"{first:.1f} ms"], ["third", f"{later:.1f} ms"]],
        )


if __name__ == "__main__":
    main()
