"""Search latency over REST at 1,000 and 10,000 messages, beside a plain RapidFuzz scan of the texts."""

from __future__ import annotations

import random
import statistics
import tempfile
import time

import httpx
import uvloop
from rapidfuzz import fuzz, process

from bench.servers import serve
from bench.throughput import HEADERS

SIZES = (1_000, 10_000)
QUERIES = 200
WORDS_A_MESSAGE = 25
VOCABULARY = 5_000
BATCH = 100


def _vocabulary(random_: random.Random) -> list[str]:
    """Pronounceable words of 2 to 4 syllables, the common ones first."""
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]
    words = {"".join(random_.choices(syllables, k=random_.randint(2, 4))) for _ in range(9_000)}
    return sorted(words)[:VOCABULARY]


def make_texts(count: int, random_: random.Random) -> list[str]:
    """Messages whose words are distributed roughly as in natural text (Zipf's law)."""
    words = _vocabulary(random_)
    random_.shuffle(words)
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return [" ".join(random_.choices(words, weights, k=WORDS_A_MESSAGE)) for _ in range(count)]


def mistype(word: str, random_: random.Random) -> str:
    """The word with one letter left out."""
    position = random_.randrange(len(word))
    return word[:position] + word[position + 1 :]


def make_queries(texts: list[str], random_: random.Random) -> list[tuple[int, str]]:
    """Four words of a message in a row, one of them mistyped, and that message's position."""
    queries = []
    for _ in range(QUERIES):
        position = random_.randrange(len(texts))
        words = texts[position].split()
        start = random_.randrange(len(words) - 4)
        chosen = words[start : start + 4]
        longest = max(range(4), key=lambda i: len(chosen[i]))
        chosen[longest] = mistype(chosen[longest], random_)
        queries.append((position, " ".join(chosen)))
    return queries


async def measure(port: int) -> None:
    """Fill a session of each size and search it; prints as it goes."""
    print(f"\nSearch over REST, {QUERIES} queries with one typo, one at a time")
    for size in SIZES:
        random_ = random.Random(size)
        texts = make_texts(size, random_)
        queries = make_queries(texts, random_)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=60
        ) as client:
            session_id = await _fill(client, texts)
            await _search(client, session_id, "warm up")
            latencies, found = [], 0
            for position, query in queries:
                started = time.perf_counter()
                seqs = await _search(client, session_id, query)
                latencies.append(time.perf_counter() - started)
                found += position + 1 in seqs
            idle = [await _time_of_nothing(client) for _ in range(QUERIES)]
        scans = []
        for _, query in queries[:50]:
            started = time.perf_counter()
            process.extract(query, texts, scorer=fuzz.WRatio, limit=10)
            scans.append(time.perf_counter() - started)
        _report(size, latencies, idle, scans, found)


def _report(
    size: int, latencies: list[float], idle: list[float], scans: list[float], found: int
) -> None:
    p50, p95 = statistics.median(latencies), statistics.quantiles(latencies, n=20)[-1]
    scan = statistics.median(scans)
    rest = statistics.median(idle)
    print(
        f"  {size:6} messages: p50 {p50 * 1000:6.2f} ms   p95 {p95 * 1000:6.2f} ms"
        f"   (an empty REST call {rest * 1000:.2f} ms, a WRatio scan in process {scan * 1000:.2f} ms)"
    )
    print(
        f"         p50 / WRatio scan {p50 / scan:5.2f}x"
        f"   the meant message in the first ten: {found / QUERIES:.1%}"
    )


async def _fill(client: httpx.AsyncClient, texts: list[str]) -> str:
    made = await client.post("/mcp/tool/create_session", json={"purpose": "search bench"})
    session_id: str = made.json()["session_id"]
    for start in range(0, len(texts), BATCH):
        calls = [
            {"tool": "add_message", "arguments": {"session_id": session_id, "content": text}}
            for text in texts[start : start + BATCH]
        ]
        answer = await client.post("/mcp/batch", json={"calls": calls})
        assert all(result["status"] == 200 for result in answer.json()["results"])
    return session_id


async def _search(client: httpx.AsyncClient, session_id: str, query: str) -> list[int]:
    answer = await client.post(
        "/mcp/tool/search_context", json={"session_id": session_id, "query": query}
    )
    assert answer.status_code == 200, answer.text
    return [result["message"]["seq"] for result in answer.json()["results"]]


async def _time_of_nothing(client: httpx.AsyncClient) -> float:
    started = time.perf_counter()
    await client.post("/mcp/tool/get_memory", json={"key": "absent"})
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as data_dir, serve(data_dir) as server:
        uvloop.run(measure(server.port))


if __name__ == "__main__":
    main()
