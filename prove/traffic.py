"""The traffic of a run: twenty agents that write, read, wait, hold leases and share tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from prove.clients import Agent
from prove.history import Outcome

SESSIONS = 3
WRITERS = 9
WORKERS = 3
LEASE_TTL_S = 2
TASK_TTL_S = 3
PAUSE_S = 0.08
"""Between the calls of an agent, at most: they are many, and share the machine with the servers."""


@dataclass
class Place:
    """The sessions that all agents share. `board`: the one with the tasks."""

    sessions: list[str] = field(default_factory=list)
    board: str = ""

    @classmethod
    async def prepare(cls, agent: Agent, members: list[str]) -> Place:
        place = cls()
        for number in range(SESSIONS):
            last = number == SESSIONS - 1
            access: dict[str, Any] = (
                {"access": "invited", "participants": members} if last else {"access": "open"}
            )
            made = await agent.insist("create_session", purpose=f"session {number}", **access)
            place.sessions.append(made.answer["session_id"])
        made = await agent.insist("create_session", purpose="tasks")
        place.board = made.answer["session_id"]
        return place


class Writer:
    """Does a bit of everything, one call after the other."""

    def __init__(self, agent: Agent, place: Place, names: list[str]) -> None:
        self._agent = agent
        self._place = place
        self._names = names
        self._number = 0
        self._cursors = dict.fromkeys(place.sessions, 0)
        acts: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (10, self._write),
            (4, self._read_on),
            (2, self._read_newest),
            (2, self._mark),
            (1, self._list),
            (1, self._search),
            (7, self._share_memory),
            (2, self._keep_own),
            (3, self._hold_lease),
            (1, self._delete_session),
            (2, self._add_task),
        ]
        self._acts = [act for weight, act in acts for _ in range(weight)]
        self._temporary = 0

    async def run(self) -> None:
        agent = self._agent
        while not agent.run.is_over:
            await agent.chooser.choice(self._acts)()
            await asyncio.sleep(agent.chooser.uniform(0, PAUSE_S))

    def _choose(self) -> str:
        return self._agent.chooser.choice(self._place.sessions)

    def _new_text(self) -> str:
        self._number += 1
        return f"{self._agent.name} says {self._number}"

    async def _write(self) -> None:
        agent, chooser = self._agent, self._agent.chooser
        visibility = chooser.choices(["public", "private", "agent_only"], [6, 3, 1])[0]
        arguments: dict[str, Any] = {
            "session_id": self._choose(),
            "content": self._new_text(),
            "visibility": visibility,
            "idempotency_key": agent.new_key(),
        }
        if visibility == "private":
            arguments["recipients"] = chooser.sample(self._names, 2)
        way = chooser.random()
        send = agent.insist_twice_at_once if way < 0.15 else agent.insist
        written = await send("add_message", **arguments)
        if way > 0.9 and written.is_ok:
            await agent.call("add_message", **arguments)  # as if the answer had been lost

    async def _read_on(self) -> None:
        session_id = self._choose()
        page = await self._agent.call(
            "get_messages",
            session_id=session_id,
            after_seq=self._cursors[session_id],
            limit=self._agent.chooser.choice([5, 20, 100]),
        )
        if page.is_ok:
            self._cursors[session_id] = page.answer["next_after_seq"]

    async def _read_newest(self) -> None:
        await self._agent.call("get_messages", session_id=self._choose(), limit=20)

    async def _mark(self) -> None:
        session_id = self._choose()
        if self._cursors[session_id]:
            seq = self._cursors[session_id]
            await self._agent.call("mark_read", session_id=session_id, seq=seq)

    async def _list(self) -> None:
        await self._agent.call("list_sessions", limit=20)

    async def _search(self) -> None:
        query = self._agent.chooser.choice(self._names)
        await self._agent.call("search_context", query=query, session_id=self._choose(), limit=20)

    async def _share_memory(self) -> None:
        """One of the entries that all agents change, by one of the modes."""
        agent = self._agent
        mode = agent.chooser.choice(["increment", "append", "merge", "create", "expected"])
        place: dict[str, Any] = {"session_id": self._choose(), "scope": "shared"}
        write = place | {"idempotency_key": agent.new_key()}
        text = self._new_text()
        match mode:
            case "increment":
                key = "counter"
                await agent.insist("set_memory", key=key, mode="increment", value=1, **write)
            case "append":
                key = f"list {agent.chooser.randrange(3)}"
                await agent.insist("set_memory", key=key, mode="append", value=text, **write)
            case "merge":
                key = f"object {agent.chooser.randrange(3)}"
                value = {text: 1}
                await agent.insist("set_memory", key=key, mode="merge", value=value, **write)
            case "create":
                key = f"once {agent.chooser.randrange(1000)}"
                await agent.insist("set_memory", key=key, mode="create", value=text, **write)
            case _:
                key = f"plan {agent.chooser.randrange(3)}"
                read = await agent.call("get_memory", key=key, **place)
                if read.outcome is Outcome.UNKNOWN:
                    return
                version = read.answer["version"] if read.is_ok else 0
                write |= {"value": text, "expected_version": version}
                await agent.insist("set_memory", key=key, **write)
        if agent.chooser.random() < 0.4:
            await agent.call("get_memory", key=key, **place)

    async def _keep_own(self) -> None:
        """An entry of its own: written, read, expired or deleted, and gone."""
        agent = self._agent
        self._temporary += 1
        key = f"own {self._temporary}"
        expires = agent.chooser.random() < 0.5
        more: dict[str, Any] = {"expires_in": 1} if expires else {}
        written = await agent.insist(
            "set_memory", key=key, value=self._temporary, idempotency_key=agent.new_key(), **more
        )
        if not written.is_ok:
            return
        await agent.call("get_memory", key=key)
        if expires:
            await asyncio.sleep(1.05)
        elif (await agent.call("delete_memory", key=key)).outcome is Outcome.UNKNOWN:
            return
        await agent.call("get_memory", key=key)

    async def _hold_lease(self) -> None:
        """Work under a lease, sometimes for longer than it lasts, and release it, or not."""
        agent, chooser = self._agent, self._agent.chooser
        place: dict[str, Any] = {
            "session_id": self._choose(),
            "name": f"lease {chooser.randrange(2)}",
        }
        taken = await agent.call(
            "acquire_lease",
            ttl_seconds=LEASE_TTL_S,
            wait_seconds=chooser.choice([0, 1, 8]),
            **place,
        )
        if not taken.is_ok or not taken.answer["acquired"]:
            return
        fence = {"lease": place["name"], "fencing_token": taken.answer["fencing_token"]}
        place_of_write = {"session_id": place["session_id"]}
        for _ in range(chooser.randint(1, 3)):
            key = agent.new_key()
            if chooser.random() < 0.5:
                text = self._new_text()
                await agent.insist(
                    "add_message", content=text, idempotency_key=key, **place_of_write, **fence
                )
            else:
                await agent.insist(
                    "set_memory",
                    key=f"under {place['name']}",
                    scope="shared",
                    value=self._new_text(),
                    idempotency_key=key,
                    **place_of_write,
                    **fence,
                )
            await asyncio.sleep(chooser.choice([0, 0.2, 1.2]))
        if chooser.random() < 0.7:
            token = taken.answer["fencing_token"]
            await agent.call("release_lease", fencing_token=token, **place)

    async def _delete_session(self) -> None:
        agent = self._agent
        made = await agent.call("create_session", purpose="to be deleted")
        if not made.is_ok:
            return
        place: dict[str, Any] = {"session_id": made.answer["session_id"]}
        await agent.call("add_message", content=self._new_text(), **place)
        await agent.insist("delete_session", **place)
        await agent.call("get_messages", **place)

    async def _add_task(self) -> None:
        agent = self._agent
        await agent.insist(
            "add_task",
            session_id=self._place.board,
            title=self._new_text(),
            idempotency_key=agent.new_key(),
        )


class Worker:
    """Claims tasks and finishes them, now and then too late."""

    def __init__(self, agent: Agent, place: Place) -> None:
        self._agent = agent
        self._place = {"session_id": place.board}

    async def run(self) -> None:
        agent, chooser = self._agent, self._agent.chooser
        while not agent.run.is_over:
            claimed = await agent.insist(
                "claim_task",
                ttl_seconds=TASK_TTL_S,
                wait_seconds=1,
                idempotency_key=agent.new_key(),
                **self._place,
            )
            task = claimed.answer.get("task") if claimed.is_ok else None
            if task is None:
                continue
            await asyncio.sleep(chooser.choice([0, 0.05, 0.2, TASK_TTL_S + 0.3]))
            await agent.insist(
                "finish_task",
                task_id=task["id"],
                fencing_token=task["fencing_token"],
                outcome=chooser.choice(["done", "done", "done", "released"]),
                idempotency_key=agent.new_key(),
                **self._place,
            )
