"""Replaces servers one after the other under load, and checks that nobody lost anything by it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.deploy.rehearsal.compose import Deployment
from tests.deploy.rehearsal.containers import POLL_S
from tests.deploy.rehearsal.load import AGENTS, Load, Stream, Waiter, open_load
from tests.deploy.rehearsal.tables import Table

BEFORE_S = 4.0  # of load before the first server ends, between two, and after the last
CATCH_UP_S = 60.0


@dataclass
class Outcome:
    """The figures of one rollout, and the promises that were broken."""

    name: str
    table: Table
    broken: list[str] = field(default_factory=list)


async def measure(
    name: str, url: str, api_key: str, roll: Callable[[], Awaitable[None]]
) -> Outcome:
    """Run `roll` while twenty agents write and listen at `url`; what they saw of it."""
    async with open_load(url, api_key) as load:
        listening = [asyncio.create_task(listener.run()) for listener in load.listeners]
        began = time.monotonic()
        writing = [asyncio.create_task(writer.run()) for writer in load.writers]
        await asyncio.sleep(BEFORE_S)
        load.record.rolled.append(time.monotonic())
        await roll()
        load.record.rolled.append(time.monotonic())
        await asyncio.sleep(BEFORE_S)
        for writer in load.writers:
            writer.is_over = True
        _, stuck = await asyncio.wait(writing, timeout=CATCH_UP_S)
        for task in stuck:
            task.cancel()
        seconds = time.monotonic() - began
        kept = await load.read_all()
        await wait_until_seen(load, kept)
        for task in listening:
            task.cancel()
        await asyncio.gather(*writing, *listening, return_exceptions=True)
        outcome = judge(name, load, kept, seconds)
        if stuck:
            outcome.broken.append(
                f"{name}: {len(stuck)} writers got no answer within {CATCH_UP_S:.0f} s"
            )
        return outcome


async def wait_until_seen(load: Load, kept: dict[str, list[tuple[int, str]]]) -> None:
    """Return when every listener has seen as many messages as there are, or the time is up."""
    for _ in range(int(CATCH_UP_S / POLL_S)):
        if all(len(each.seen) >= len(kept[each.session_id]) for each in load.listeners):
            return
        await asyncio.sleep(POLL_S)


def judge(name: str, load: Load, kept: dict[str, list[tuple[int, str]]], seconds: float) -> Outcome:
    record = load.record
    times = Counter(content for messages in kept.values() for _, content in messages)
    places = {
        content: (where, seq) for where, messages in kept.items() for seq, content in messages
    }
    lost = [
        content
        for content, sent in record.sent.items()
        if places.get(content) != (sent.session_id, sent.seq)
    ]
    doubled = [content for content, count in times.items() if count > 1]
    unknown = [content for content in times if content not in record.sent]
    wrong = [
        listener
        for listener in load.listeners
        if [(seq, content) for seq, content, _ in listener.seen] != kept[listener.session_id]
    ]
    streams = [listener for listener in load.listeners if isinstance(listener, Stream)]
    waiters = [listener for listener in load.listeners if isinstance(listener, Waiter)]
    table = Table(name, ["figure", "value"])
    table.add("agents, and seconds of load", f"{AGENTS}, {seconds:.0f}")
    table.add("messages acknowledged", len(record.sent))
    table.add("of these lost / there twice", f"{len(lost)} / {len(doubled)}")
    table.add("there without an acknowledgement", len(unknown))
    for kind in sorted(record.calls):
        table.add(f"{kind}: calls / tried again", f"{record.calls[kind]} / {record.retried[kind]}")
    for kind, count in sorted(record.refusals.items()):
        table.add(f"refused or cut off, {kind}", count)
    for kind in sorted(record.calls):
        if kind.endswith("writes"):
            longest = (record.longest_s(kind, is_rolling=rolling) for rolling in (False, True))
            table.add(
                f"{kind}: longest before and after / during",
                " / ".join(f"{s:.2f} s" for s in longest),
            )
    table.add(
        "streams / came back by Last-Event-ID",
        f"{len(streams)} / {sum(s.resumed for s in streams)}",
    )
    table.add("a stream away, longest", f"{max(s.longest_away_s for s in streams):.2f} s")
    table.add("a message at a stream, latest", f"{max(s.latest_s() for s in streams):.2f} s")
    table.add("a message at a waiting call, latest", f"{max(w.latest_s() for w in waiters):.2f} s")
    table.add("listeners that missed or doubled one", len(wrong))
    broken = []
    if lost or doubled or unknown:
        broken.append(
            f"{name}: a message was lost, doubled, or written without its writer's knowledge"
        )
    if wrong:
        broken.append(f"{name}: a listener saw something else than what is there")
    return Outcome(name, table, broken)


async def restart_one_by_one(deployment: Deployment) -> None:
    """Stop each replica, start it again and wait until it is healthy, before the next one."""
    service = deployment.services["replica"]
    for number in range(len(service.specs)):
        await asyncio.to_thread(deployment.measure)
        service.stopped.append(await asyncio.to_thread(service.containers[number].stop))
        container = await asyncio.to_thread(deployment.start, service, number)
        await asyncio.to_thread(deployment.wait_until_healthy, service, container)
        await asyncio.sleep(BEFORE_S)
