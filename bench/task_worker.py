"""A worker that claims and finishes tasks until none is left.

As a process, `python -m bench.task_worker URL SESSION AGENT SEED`, it prints a line when it is ready,
begins after a line on stdin, and prints a line for each task that it begins.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from bench.keys import API_KEY

TTL_S = 5
WAIT_S = 5
LONGEST_WORK_S = 0.01

Call = Callable[..., Awaitable[dict[str, Any]]]


async def work(
    call: Call, session_id: str, chooser: random.Random, begun: Callable[[], None]
) -> None:
    """Claim and finish tasks until none is left. `begun` is called when a task is begun."""
    while True:
        claimed = await call(
            "claim_task", session_id=session_id, ttl_seconds=TTL_S, wait_seconds=WAIT_S
        )
        task, counts = claimed["task"], claimed["counts"]
        if task is None:
            if not (counts["ready"] or counts["blocked"] or counts["claimed"]):
                return
            continue
        begun()
        await asyncio.sleep(chooser.uniform(0, LONGEST_WORK_S))
        ended = await call(
            "finish_task",
            session_id=session_id,
            task_id=task["id"],
            fencing_token=task["fencing_token"],
            result=f"by {task['claimed_by']}",
        )
        assert ended["success"] or ended["code"] == "LEASE_LOST", ended


def headers_of(agent_id: str) -> dict[str, str]:
    return {"X-API-Key": API_KEY, "X-Agent-ID": agent_id}


def open_http(url: str, agent_id: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers=headers_of(agent_id), timeout=60)


def http_call(http: httpx.AsyncClient) -> Call:
    async def call(tool: str, **arguments: Any) -> dict[str, Any]:
        body: dict[str, Any] = (await http.post(f"/mcp/tool/{tool}", json=arguments)).json()
        return body

    return call


async def main(url: str, session_id: str, agent_id: str, seed: str) -> None:
    async with open_http(url, agent_id) as http:
        print("ready", flush=True)
        sys.stdin.readline()
        await work(
            http_call(http), session_id, random.Random(seed), lambda: print("begun", flush=True)
        )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
