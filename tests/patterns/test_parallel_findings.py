"""Agents that write into one value at the same time lose nothing of each other."""

from __future__ import annotations

import asyncio

from examples.patterns.parallel_findings import report
from tests.client.conftest import PATIENCE_S, Fault, Relay, create_session, make_client

REVIEWERS = 5
PLACES = 6


async def test_no_finding_is_lost_although_answers_are(relay: Relay, server_url: str) -> None:
    async def review(n: int, session_id: str) -> None:
        async with make_client(relay.url, f"reviewer-{n}") as client:
            # Some places are everybody's, some are one reviewer's.
            found = [(f"{place if place % 2 else (n, place)}", n) for place in range(PLACES)]
            await report(client.session(session_id), f"reviewer-{n}", found)

    async with asyncio.timeout(PATIENCE_S), make_client(server_url) as lead:
        session = lead.session(await create_session(lead))
        relay.faults.extend([Fault.LOSE_ANSWER, Fault.LOSE_ANSWER, Fault.HANG_UP] * 2)
        async with asyncio.TaskGroup() as reviewers:
            for n in range(REVIEWERS):
                reviewers.create_task(review(n, session.id))
        findings = await session.memory.get("findings", scope="shared")
    everybody = [f"reviewer-{n}" for n in range(REVIEWERS)]
    expected = {
        str(place): {"severity": REVIEWERS - 1, "found_by": everybody}
        for place in range(1, PLACES, 2)
    } | {
        str((n, place)): {"severity": n, "found_by": [f"reviewer-{n}"]}
        for n in range(REVIEWERS)
        for place in range(0, PLACES, 2)
    }
    assert findings.value == expected
    assert findings.version == REVIEWERS * PLACES, "a repeated write was done twice"
