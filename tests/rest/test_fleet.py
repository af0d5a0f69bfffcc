"""GET /fleet: what the dashboard's first page shows, as JSON."""

from __future__ import annotations

import httpx


async def test_the_fleet_comes_in_pages_that_have_every_agent_once(
    agent: httpx.AsyncClient,
) -> None:
    for name in ("builder", "tester", "writer"):
        headers = {"X-Agent-ID": name}
        await agent.post("/mcp/tool/set_status", json={"text": f"{name} works"}, headers=headers)
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await agent.get("/fleet", params={"limit": 2, "cursor": cursor})).json()
        seen += [one["agent_id"] for one in page["agents"]]
        assert page["counts"]["working"] >= 3
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen))
    assert {"builder", "tester", "writer"} <= set(seen)


async def test_what_is_asked_wrongly_is_named(agent: httpx.AsyncClient) -> None:
    for query, field in (
        *(("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit")),
        *(("activity=idle", "activity"), ("cursor=x", "cursor")),
    ):
        answer = await agent.get(f"/fleet?{query}")
        assert (answer.status_code, answer.json()["details"]["field"]) == (400, field)
