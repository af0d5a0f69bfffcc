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
import heapq
import math
import random
import statistics
import tempfile
import time
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import uvloop

from bench.load import http_request, open_connection
from bench.search_texts import (
    KINDS,
    LANGUAGES,
    SearchQuery,
    Text,
    list_texts,
    make_queries,
    mistype,
)
from bench.servers import Server, serve, warm_environment
from bench.tables import print_table
from bench.throughput import CONTENT, HEADERS
from shared_context_server.models import Access, AuditEntry, Caller, Permission, Visibility
from shared_context_server.services.late_imports import SEARCH, import_late
from shared_context_server.services.scoring import (
    Query,
    find_hits_in_steps,
    find_similar_in_steps,
    score_texts,
)
from shared_context_server.services.search_process import CHILD
from shared_context_server.services.slices import finish
from shared_context_server.services.terms import index_terms, list_chunks
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
WARM_SECONDS = 5.0  # so much searching starts the process for searches
SEARCHERS = 2
READY_PATIENCE_S = 900.0
MIN_SCORE = 60  # the default threshold of search_context


class Needle(NamedTuple):
    """A word that stands in one message only. `place`: where in the session, from 0 to 1."""

    word: str
    place: float


NEEDLES = {
    "early": Needle("quokkaberries", 0.001),
    "middle": Needle("wombatlanterns", 0.5),
    "late": Needle("numbatwhistles", 0.999),
}
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
    "memory": Goal("memory a process adds of its own", "MB", at_most=(20, 40, 100)),
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


def _hide_needles(texts: list[Text]) -> list[Text]:
    for needle in NEEDLES.values():
        place = int(needle.place * (len(texts) - 1))
        text = texts[place]
        texts[place] = replace(text, content=f"{text.content} {needle.word}")
    return texts


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


def request(tool: str, **arguments: Any) -> bytes:
    """A call as it goes over the wire, so that no client library is part of the figures."""
    return http_request(f"/mcp/tool/{tool}", arguments, HEADERS)


def search_requests(session_id: str, queries: Sequence[SearchQuery]) -> list[bytes]:
    return [
        request("search_context", session_id=session_id, query=one.query, limit=FIRST)
        for one in queries
    ]


async def wait_until_covered(client: httpx.AsyncClient, session_id: str) -> float | None:
    """Search until an answer covers all messages; return the seconds, None if it never did."""
    started = time.monotonic()
    while time.monotonic() - started < READY_PATIENCE_S:
        if (await search(client, session_id, "needle"))["exhaustive"]:
            return time.monotonic() - started
        await asyncio.sleep(0.2)
    return None


async def time_searches(
    server: Server, session_id: str, queries: Sequence[SearchQuery]
) -> list[float]:
    """Seconds of each, one at a time."""
    taken = []
    async with open_connection(server.port) as send:
        for one in search_requests(session_id, queries):
            started = time.perf_counter()
            await send(one)
            taken.append(time.perf_counter() - started)
    return taken


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


# Recall


class Scan:
    """Scores of all texts, by the server's own scorer, with its weights of rare words.

    What the texts consist of is compared once for all of them. Of the texts that have something
    similar, those are scored whole that can still be among the best.
    """

    def __init__(self, texts: Sequence[Text]) -> None:
        self._contents = [text.content for text in texts]
        self._places: dict[str, array[int]] = {}  # for each chunk, the texts that have it
        for place, content in enumerate(self._contents):
            for chunk in set(list_chunks(content)):
                self._places.setdefault(chunk, array("I")).append(place)
        self._chunks: defaultdict[str, list[str]] = defaultdict(list)  # for each term
        for chunk in self._places:
            for term in set(index_terms(chunk)):
                self._chunks[term].append(chunk)
        self._terms = list(self._chunks)

    def prepare(self, text: str) -> Query:
        query = Query(text)
        query.weigh_by_counts(self._count, len(self._contents))
        return query

    def find_best(self, query: Query) -> list[float]:
        """Return the best scores, the highest first."""
        bounds = self._find_bounds(query)
        best: list[float] = []
        for place in sorted(bounds, key=lambda place: -bounds[place]):
            bound = 100 * bounds[place]
            if bound < MIN_SCORE or (len(best) == FIRST and best[0] >= bound):
                break
            score = self.score(query, place)
            if score >= MIN_SCORE:
                (heapq.heappush if len(best) < FIRST else heapq.heappushpop)(best, score)
        return sorted(best, reverse=True)

    def score(self, query: Query, place: int) -> float:
        return score_texts(query, [self._contents[place]])[0]

    def _find_bounds(self, query: Query) -> dict[int, float]:
        """Return for each text that has something similar the largest share that it may have."""
        similar: list[dict[float, list[str]]] = [{} for _ in query.units]
        for chunk, hits in finish(find_hits_in_steps(query, [self._find_chunks(query)])).items():
            for hit in hits:
                for unit in range(hit.first, hit.last + 1):
                    similar[unit].setdefault(hit.similarity, []).append(chunk)
        bounds: defaultdict[int, float] = defaultdict(float)
        for by_similarity, weight in zip(similar, query.weights, strict=True):
            best: dict[int, float] = {}
            for similarity in sorted(by_similarity):
                for chunk in by_similarity[similarity]:
                    best.update(dict.fromkeys(self._places[chunk], similarity * weight))
            for place, share in best.items():
                bounds[place] += share
        return bounds

    def _find_chunks(self, query: Query) -> set[str]:
        """Return the chunks with something similar."""
        terms = {*query.counted_terms(), *finish(find_similar_in_steps(query, self._terms))}
        return {chunk for term in terms for chunk in self._chunks.get(term, ())}

    def _count(self, term: str) -> int:
        return len(set().union(*(self._places[chunk] for chunk in self._chunks.get(term, ()))))


async def measure_recall(
    client: httpx.AsyncClient,
    session_id: str,
    queries: Sequence[SearchQuery],
    scan: Scan,
    places: dict[int, int],
    report: Report,
) -> None:
    for query in queries:
        prepared = scan.prepare(query.query)
        best = await asyncio.to_thread(scan.find_best, prepared)
        answer = await search(client, session_id, query.query)
        found = [places[result["message"]["seq"]] for result in answer["results"]]
        report.meant[query.kind].append(query.target in found)
        if best:
            good = sum(scan.score(prepared, place) >= best[-1] - NEAR for place in found)
            share = min(1.0, good / len(best))
            report.recall[query.kind].append(share)
            report.recall[query.language].append(share)


async def find_needles(client: httpx.AsyncClient, session_id: str, report: Report) -> None:
    """Search for the words that stand in one message each, with a typo."""
    for name, needle in NEEDLES.items():
        started = time.perf_counter()
        answer = await search(client, session_id, mistype(needle.word, random.Random(name)))
        found = any(needle.word in one["message"]["content"] for one in answer["results"])
        took_ms = (time.perf_counter() - started) * 1000
        report.notes[f"needle {name}"] = f"{'found' if found else 'not found'}, {took_ms:.1f} ms"


# What searches cost others


async def measure_adds(server: Server, seconds: float) -> list[float]:
    """Add messages one after the other to a session of their own; seconds of each."""
    async with connect(server) as client:
        session_id = (await call(client, "create_session", purpose="adds"))["session_id"]
    add = request("add_message", session_id=session_id, content=CONTENT)
    taken = []
    async with open_connection(server.port) as send:
        ends_at = time.perf_counter() + seconds
        while (started := time.perf_counter()) < ends_at:
            await send(add)
            taken.append(time.perf_counter() - started)
    return taken


@asynccontextmanager
async def searching(
    server: Server, session_id: str, queries: Sequence[SearchQuery]
) -> AsyncIterator[None]:
    """SEARCHERS search without a rest, each on its own connection."""
    requests = search_requests(session_id, queries)

    async def run(number: int) -> None:
        async with open_connection(server.port) as send:
            for one in cycle(requests[number::SEARCHERS]):
                await send(one)

    tasks = [asyncio.create_task(run(number)) for number in range(SEARCHERS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Memory(NamedTuple):
    """Of the processes of a server, MB. `own`: what each has written itself, by its pid. `resident`
    has besides what it has read of files, which all processes share: the index, the database and
    libraries. `child`: what the processes have of their own in which they search."""

    own: dict[int, float]
    resident: dict[int, float]
    child: float


def measure_memory(server: Server) -> Memory:
    process = psutil.Process(server.pid)
    family = [process, *process.children(recursive=True)]
    searching = [one for one in family if CHILD in one.cmdline()]
    serving = [one for one in family if one not in searching]
    return Memory(
        {one.pid: _own_mb(one) for one in serving},
        {one.pid: one.memory_info().rss / 1_048_576 for one in serving},
        sum(map(_own_mb, searching)),
    )


def find_growth(before: dict[int, float], after: dict[int, float]) -> float:
    """Return the growth of the process that has grown most: with several workers, of the one that
    was asked."""
    return max(after[pid] - before[pid] for pid in before.keys() & after.keys())


def _own_mb(process: psutil.Process) -> float:
    if not psutil.LINUX:
        return float(process.memory_info().rss) / 1_048_576
    written = sum(one.private_dirty for one in process.memory_maps(grouped=True))
    return float(written) / 1_048_576


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
            plain = measure_memory(server)
            first = await time_searches(server, session_id, typos[:1])
            report.figures["first"] = first[0]
            covered = await wait_until_covered(client, session_id)
            report.notes["covered after a restart"] = (
                "never" if covered is None else f"{covered:.1f} s"
            )
            warm_until = time.monotonic() + WARM_SECONDS
            while time.monotonic() < warm_until:
                await time_searches(server, session_id, typos[:10])
            taken = await time_searches(server, session_id, typos)
            report.figures["p95"] = quantile(taken, 0.95) * 1000
            report.notes["p50"] = f"{statistics.median(taken) * 1000:.1f} ms"
            with_search = measure_memory(server)
            grown = find_growth(plain.own, with_search.own)
            report.figures["memory"] = grown + with_search.child
            report.notes["of that in the process for searches"] = f"{with_search.child:.1f} MB"
            resident = find_growth(plain.resident, with_search.resident)
            report.notes["of the server with shared pages of files"] = f"{resident:.1f} MB"
            await find_needles(client, session_id, report)
            alone = await measure_adds(server, ADD_SECONDS)
            async with searching(server, session_id, typos):
                beside = await measure_adds(server, ADD_SECONDS)
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
    random_ = random.Random(report.size + 1)
    for kind in KINDS:
        queries = make_queries(texts, kind, arguments.scans or _count_scans(report.size), random_)
        await measure_recall(client, session_id, queries, scan, places, report)
    report.figures["recall"] = statistics.mean(
        share for kind in KINDS for share in report.recall[kind]
    )


def _count_scans(size: int) -> int:
    """Return the scans of each kind, so that all take some minutes at any size."""
    return 40 if size <= 10_000 else 25 if size <= 100_000 else 10


async def _compare_adds(
    report: Report, directory: str, url: str | None, workers: int, setting: str
) -> None:
    """The rate of add_message with the index and without it, in turns."""
    name, _, value = setting.partition("=")
    rates: dict[bool, list[float]] = {True: [], False: []}
    for is_indexed in (True, False) * 3:
        further = {} if is_indexed else {name: value}
        with open_server(directory, url, workers, **further) as server:
            await measure_adds(server, 0.5)
            rates[is_indexed].append(len(await measure_adds(server, ADD_SECONDS)))
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
            rounds.append([])
            for name, query in zip(names, asked[number:] + asked[:number], strict=False):
                rounds[-1] += await time_searches(server, name, [query])
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
        texts = _hide_needles(list_texts(size, random.Random(size)))
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
