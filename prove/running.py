"""One run: twenty agents on a system while faults are done to it, then a look at everything."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from prove.checks import check
from prove.clients import Agent, Run
from prove.faults import Faults, port_of
from prove.followers import EventReader, Subscriber, Waiter
from prove.history import History
from prove.promises import Broken
from prove.relay import Relay
from prove.systems import ADMIN_API_KEY, API_KEY, Setup, System, has_compiler, open_system
from prove.traffic import WORKERS, WRITERS, Place, Worker, Writer

PAGE = 1000
END_S = 90.0
"""For the calls under way when the traffic ends; far above what they take."""

CATCH_UP_S = 8.0
FAULT_PAUSE_S = (1.0, 4.0)
DISK_BYTES = 96 * 1024 * 1024
WAITERS, READERS, SUBSCRIBERS = 3, 3, 2
AGENTS = WRITERS + WORKERS + WAITERS + READERS + SUBSCRIBERS


def run_setup(
    setup: Setup, directory: Path, seed: int, seconds: float, disk: Path | None
) -> tuple[History, list[Broken], list[str]]:
    """Return the history of a run, what is broken, and what the servers' logs say of defects."""
    with open_system(setup, directory, disk=disk, has_clock=has_compiler()) as system:
        history = asyncio.run(_run(system, seed, seconds))
    return history, check(history), system.find_defects()


async def _run(system: System, seed: int, seconds: float) -> History:
    async with AsyncExitStack() as stack:
        relays = []
        for server in system.servers:
            relay = Relay(port_of(server.url))
            await relay.start()
            stack.push_async_callback(relay.aclose)
            relays.append(relay)
        run = Run([relay.url for relay in relays], API_KEY, ADMIN_API_KEY)
        await _traffic(system, run, relays, seed, seconds, stack)
        return run.history


async def _traffic(
    system: System,
    run: Run,
    relays: list[Relay],
    seed: int,
    seconds: float,
    stack: AsyncExitStack,
) -> None:
    def add(name: str, place: int, agent_type: str = "generic") -> Agent:
        agent = Agent(run, name, agent_type=agent_type, seed=seed, home=place)
        stack.push_async_callback(agent.aclose)
        return agent

    auditor = Agent(run, "auditor", seed=seed, ways=("REST",), is_admin=True)
    stack.push_async_callback(auditor.aclose)
    writers = [
        add(f"writer-{number}", number, ("claude", "gpt")[number % 2]) for number in range(WRITERS)
    ]
    workers = [add(f"worker-{number}", number) for number in range(WORKERS)]
    others = [add(f"waiter-{number}", number) for number in range(WAITERS)]
    readers = [add(f"reader-{number}", number, "claude") for number in range(READERS)]
    listeners = [add(f"listener-{number}", number, "gpt") for number in range(SUBSCRIBERS)]
    names = [agent.name for agent in (*writers, *others)]
    members = [agent.name for agent in (*writers, *others, *readers)]
    place = await Place.prepare(auditor, members)
    following = [
        *(Waiter(agent, place.sessions[: n + 1]).run() for n, agent in enumerate(others)),
        *(EventReader(agent, place.sessions[n]).run() for n, agent in enumerate(readers[:2])),
        EventReader(readers[2], None).run(),
        *(Subscriber(agent, place.sessions[n]).run() for n, agent in enumerate(listeners)),
    ]
    followers = [asyncio.create_task(one) for one in following]
    acting = [Writer(agent, place, names).run() for agent in writers]
    acting += [Worker(agent, place).run() for agent in workers]
    actors = [asyncio.create_task(one) for one in acting]
    faults = Faults(system, run, relays, random.Random(f"{seed} faults"))
    stack.callback(faults.close)
    await faults.run(time.monotonic() + seconds, FAULT_PAUSE_S)
    run.is_over = True
    async with asyncio.timeout(END_S):
        await asyncio.gather(*actors)
    await asyncio.sleep(CATCH_UP_S)  # whoever is not told of the last messages within it is late
    for task in followers:
        task.cancel()
    for task in followers:
        with suppress(asyncio.CancelledError):
            await task
    await audit(auditor)


async def audit(auditor: Agent) -> None:
    """Read all that is there: logs, boards and shared memory of the sessions."""
    run = auditor.run
    for call in run.history.calls:
        call.is_final = False  # an earlier look is an ordinary read from now on
    run.is_final = True
    made = [call.answer["session_id"] for call in run.history.of("create_session") if call.is_ok]
    deleted = {call.arguments["session_id"] for call in run.history.of("delete_session")}
    for session_id in made:
        if session_id not in deleted:
            await _read_session(auditor, session_id)
    run.is_final = False


async def _read_session(auditor: Agent, session_id: str) -> None:
    after_seq, has_more = 0, True
    while has_more:
        page = await auditor.insist(
            "get_messages", session_id=session_id, after_seq=after_seq, limit=PAGE
        )
        after_seq, has_more = page.answer["next_after_seq"], page.answer["has_more"]
    cursor: dict[str, str] = {}
    while True:
        board = await auditor.insist("list_tasks", session_id=session_id, limit=200, **cursor)
        if board.answer["next_cursor"] is None:
            break
        cursor = {"cursor": board.answer["next_cursor"]}
    keys = {
        call.arguments["key"]
        for call in auditor.run.history.of("set_memory")
        if call.arguments.get("session_id") == session_id
        and call.arguments.get("scope") == "shared"
    }
    for key in sorted(keys):
        await auditor.insist("get_memory", key=key, session_id=session_id, scope="shared")
