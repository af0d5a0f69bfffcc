"""Parallel collaboration: three reviewers write into one list of findings, one merges it.

The list is one value in shared memory. Two findings at the same place become one, which needs a
look at what is there: `update_memory` reads, changes and writes with `expected_version`, and begins
again if somebody else was faster. So nothing is overwritten, without a lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from shared_context_client import Session, SharedContextClient
from shared_context_client.patterns import Barrier, update_memory

REVIEWERS = ["security", "style", "tests"]


async def decide(agent_id: str) -> list[tuple[str, int]]:
    """What a model would find: places in the code, each with a severity from 1 to 3."""
    scripted = {
        "security": [("login.py:12", 3), ("parser.py:40", 2)],
        "style": [("parser.py:40", 1), ("report.py:7", 1)],
        "tests": [("parser.py:40", 3), ("login.py:12", 1)],
    }
    return scripted[agent_id]


def adding(place: str, severity: int, agent_id: str) -> Callable[[Any], Any]:
    """The change that adds a finding to those there are; doing it twice changes nothing."""

    def change(findings: Any) -> Any:
        known = findings.get(place, {"severity": 0, "found_by": []})
        merged = {
            "severity": max(severity, known["severity"]),
            "found_by": sorted({*known["found_by"], agent_id}),
        }
        return findings | {place: merged}

    return change


async def report(session: Session, agent_id: str, found: list[tuple[str, int]]) -> None:
    for place, severity in found:
        change = adding(place, severity, agent_id)
        await update_memory(session, "findings", change, default={})


async def review(agent_id: str, session_id: str) -> None:
    async with SharedContextClient(agent_id=agent_id) as client:
        session = client.session(session_id)
        await report(session, agent_id, await decide(agent_id))
        await Barrier(session, "reviewed", len(REVIEWERS) + 1).wait()


async def main() -> None:
    async with SharedContextClient(agent_id="lead") as lead:
        session = lead.session((await lead.create_session("Review the parser")).session_id)
        async with asyncio.TaskGroup() as agents:
            for agent_id in REVIEWERS:
                agents.create_task(review(agent_id, session.id))
            await Barrier(session, "reviewed", len(REVIEWERS) + 1).wait()
        findings = await session.memory.get("findings", scope="shared")
        assert isinstance(findings.value, dict)
        worst_first: list[tuple[str, Any]] = sorted(
            findings.value.items(), key=lambda item: (-item[1]["severity"], item[0])
        )
        print(f"version {findings.version}, written {findings.version} times")
        for place, finding in worst_first:
            print(f"{place}: severity {finding['severity']}, by {', '.join(finding['found_by'])}")


if __name__ == "__main__":
    asyncio.run(main())
