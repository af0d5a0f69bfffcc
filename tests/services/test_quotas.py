"""What is refused when a session, an agent or the disk is full, and what goes on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json

from shared_context_server.auth.connection import Connection
from shared_context_server.server import Server, open_server
from shared_context_server.services.disk import BYTES_PER_MB, DiskReserve, find_reserve
from tests.settings import make_settings
from tests.storage.builders import make_caller
from tests.storage.sqlite.test_faults import small_disk

WHOLE_DISK_MB = 10**9
PRIVATE = {"scope": "private"}


class Hub:
    """The tools of a server, called in process."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def call(self, tool: str, agent: str = "alice", /, **arguments: Any) -> dict[str, Any]:
        connection = Connection(make_caller(agent))
        outcome = await self.server.dispatcher.call(tool, arguments, connection)
        body: dict[str, Any] = from_json(outcome.json())
        return body | {"retry_after_s": outcome.retry_after_s}

    async def create_session(self, agent: str = "alice") -> str:
        session_id: str = (await self.call("create_session", agent, purpose="p"))["session_id"]
        return session_id

    def count_limited(self, limit: str) -> float:
        registry = self.server.metrics.registry
        return registry.get_sample_value("scs_limited_total", {"limit": limit}) or 0.0

    def check_refused(self, body: dict[str, Any], limit: str, maximum: int) -> None:
        assert (body["code"], body["retryable"]) == ("QUOTA_EXCEEDED", False)
        assert (body["details"]["limit"], body["details"]["maximum"]) == (limit, maximum)
        assert body["retry_after_s"] is None
        assert self.count_limited(limit) > 0


@asynccontextmanager
async def open_hub(data_dir: Path, **settings: Any) -> AsyncIterator[Hub]:
    made = make_settings(data_dir, search_index=False, **settings)
    async with open_server(made) as server:
        yield Hub(server)


@pytest.mark.parametrize("limit", ["max_messages_per_session", "max_messages_per_agent"])
async def test_of_many_at_once_as_many_messages_are_stored_as_may_be(
    tmp_path: Path, limit: str
) -> None:
    async with open_hub(tmp_path, **{limit: 10}) as hub:
        session_id = await hub.create_session("carol")
        add = {"session_id": session_id, "content": "x"}
        adding = (hub.call("add_message", **add, idempotency_key=str(n)) for n in range(30))
        answers = await asyncio.gather(*adding)
        stored = {n: one for n, one in enumerate(answers) if one["success"]}
        assert sorted(one["seq"] for one in stored.values()) == list(range(1, 11))
        hub.check_refused(next(one for one in answers if not one["success"]), limit, 10)
        # What was stored is repeated as ever, and others are refused only what is full.
        for number, first in stored.items():
            again = await hub.call("add_message", **add, idempotency_key=str(number))
            assert (again["seq"], again["duplicate"]) == (first["seq"], True)
        other = await hub.call("add_message", "bob", **add)
        assert other["success"] == (limit == "max_messages_per_agent")
        assert (await hub.call("get_messages", session_id=session_id))["success"]
        refused = await hub.call("add_task", session_id=session_id, title="t")
        hub.check_refused(refused, limit, 10)  # it would be told in the log


async def test_an_agent_that_deletes_a_session_may_create_another(tmp_path: Path) -> None:
    async with open_hub(tmp_path, max_sessions_per_agent=2) as hub:
        first = await hub.create_session()
        await hub.create_session()
        refused = await hub.call("create_session", purpose="p")
        hub.check_refused(refused, "max_sessions_per_agent", 2)
        assert refused["details"]["used"] == 2
        assert (await hub.call("create_session", "bob", purpose="p"))["success"]
        await hub.call("delete_session", session_id=first)
        assert (await hub.call("create_session", purpose="p"))["success"]


async def test_a_full_memory_can_be_changed_and_made_empty(tmp_path: Path) -> None:
    async with open_hub(tmp_path, max_memory_per_agent=2) as hub:
        for key in ("a", "b", "a"):
            assert (await hub.call("set_memory", key=key, value=1))["success"]
        hub.check_refused(await hub.call("set_memory", key="c", value=1), "max_memory_per_agent", 2)
        await hub.call("set_memory", "bob", key="shared", value=1, scope="shared")
        hub.check_refused(
            await hub.call("set_memory", key="shared", value=2, scope="shared"),
            "max_memory_per_agent",
            2,
        )
        assert (await hub.call("set_memory", key="b", value="longer"))["version"] == 2
        assert (await hub.call("delete_memory", key="a"))["success"]
        assert (await hub.call("set_memory", key="c", value=1))["success"]


async def test_a_session_without_room_takes_what_makes_an_entry_shorter(tmp_path: Path) -> None:
    async with open_hub(tmp_path, max_mb_per_session=1, max_memory_per_session=5) as hub:
        session_id = await hub.create_session()
        entry: dict[str, Any] = {"session_id": session_id, "scope": "shared"}
        for number in range(4):
            large = {"key": str(number), "value": "x" * 255_000}
            assert (await hub.call("set_memory", **entry, **large))["success"]
        grown = await hub.call("set_memory", **entry, key="0", value="x" * 260_000)
        assert grown["version"] == 2  # it needs less than is left
        refused = await hub.call("set_memory", "bob", **entry, key="4", value="y" * 30_000)
        hub.check_refused(refused, "max_mb_per_session", 1024 * 1024)
        assert "used" not in refused["details"]  # others' private entries count in it
        refused = await hub.call("add_message", session_id=session_id, content="z" * 30_000)
        hub.check_refused(refused, "max_mb_per_session", 1024 * 1024)
        shorter = await hub.call("set_memory", "bob", **entry, key="1", value="y" * 200_000)
        assert shorter["version"] == 2
        assert (await hub.call("add_message", session_id=session_id, content="z" * 30_000))[
            "success"
        ]
        assert (await hub.call("set_memory", **entry | PRIVATE, key="5", value=1))["success"]
        refused = await hub.call("set_memory", **entry, key="6", value=1)
        hub.check_refused(refused, "max_memory_per_session", 5)


async def test_claiming_and_failing_a_task_again_and_again_is_limited(tmp_path: Path) -> None:
    async with open_hub(tmp_path, max_messages_per_agent=6) as hub:
        session_id = await hub.create_session()
        await hub.call("add_task", session_id=session_id, title="t")
        answers = []
        for _ in range(5):
            claimed = await hub.call("claim_task", session_id=session_id, task_id=1)
            answers.append(claimed)
            if claimed["success"]:
                token = claimed["task"]["fencing_token"]
                finish = {"task_id": 1, "fencing_token": token, "outcome": "failed"}
                assert (await hub.call("finish_task", session_id=session_id, **finish))["success"]
        assert [answer["success"] for answer in answers] == [True, True, False, False, False]
        hub.check_refused(answers[-1], "max_messages_per_agent", 6)


async def test_memory_that_has_expired_does_not_count(tmp_path: Path) -> None:
    async with open_hub(tmp_path, max_memory_per_agent=1) as hub:
        assert (await hub.call("set_memory", key="short", value=1, expires_in=1))["success"]
        other = {"key": "other", "value": 1}
        hub.check_refused(await hub.call("set_memory", **other), "max_memory_per_agent", 1)
        async with asyncio.timeout(30):  # it expires
            while not (await hub.call("set_memory", **other))["success"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_who_may_not_see_a_session_does_not_learn_that_it_is_full(tmp_path: Path) -> None:
    async with open_hub(tmp_path, max_messages_per_session=1) as hub:
        made = await hub.call("create_session", purpose="p", access="invited")
        add = {"session_id": made["session_id"], "content": "x"}
        assert (await hub.call("add_message", **add))["success"]
        assert (await hub.call("add_message", "bob", **add))["code"] == "SESSION_NOT_FOUND"


async def test_with_only_the_reserve_left_reading_and_deleting_go_on(tmp_path: Path) -> None:
    async with open_hub(tmp_path) as hub:
        session_id = await hub.create_session()
        added = await hub.call("add_message", session_id=session_id, content="x", requires_ack=True)
        await hub.call("set_memory", key="k", value=1)
        kept = {"session_id": session_id, "content": "kept", "idempotency_key": "1"}
        seq = (await hub.call("add_message", **kept))["seq"]
        await hub.call("add_task", session_id=session_id, title="held")
        held = {"session_id": session_id, "task_id": 1}
        await hub.call("claim_task", **held)
    async with open_hub(tmp_path, disk_reserve_mb=WHOLE_DISK_MB) as hub:
        again = await hub.call("add_message", **kept)
        assert again.get("seq") == seq, again
        assert (await hub.call("claim_task", **held))["success"]  # which renews the claim
        in_session = {"session_id": session_id}
        refused: dict[str, tuple[str, dict[str, Any]]] = {
            "create_session": ("alice", {"purpose": "p"}),
            "add_message": ("alice", in_session | {"content": "x"}),
            "acknowledge_message": ("bob", in_session | {"message_id": added["message_id"]}),
            "set_memory": ("alice", {"key": "k", "value": 2}),
            "add_task": ("alice", in_session | {"title": "t"}),
            "claim_task": ("alice", in_session),
        }
        for number, (tool, (agent, arguments)) in enumerate(refused.items(), start=1):
            body = await hub.call(tool, agent, **arguments)
            assert (body["code"], body["retryable"]) == ("STORAGE_FULL", True), tool
            assert body["retry_after_s"] == 30
            assert hub.count_limited("disk") == number
        allowed: dict[str, dict[str, Any]] = {
            "get_messages": in_session,
            "mark_read": in_session | {"seq": 1},
            "acquire_lease": {"name": "l"},
            "search_context": {"query": "x"},
            "delete_memory": {"key": "k"},
            "delete_session": in_session,
        }
        for tool, arguments in allowed.items():
            assert (await hub.call(tool, **arguments))["success"], tool


@pytest.mark.parametrize(
    "reserve_mb, disk_mb, found_mb", [(None, 100_000, 50), (None, 64, 3), (20, 64, 20), (0, 64, 0)]
)
def test_the_usual_reserve_is_a_small_part_of_a_small_disk(
    reserve_mb: int | None, disk_mb: int, found_mb: int
) -> None:
    assert find_reserve(reserve_mb, disk_mb * BYTES_PER_MB) // BYTES_PER_MB == found_mb


async def test_a_disk_that_cannot_be_measured_refuses_nothing(tmp_path: Path) -> None:
    async with open_hub(tmp_path) as hub:
        disk = DiskReserve(tmp_path / "nowhere", WHOLE_DISK_MB, hub.server.services.store)
        await disk.check()
        assert disk.find_shortage() is None


async def test_what_was_deleted_makes_room_though_the_file_does_not_shrink(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64m") as mount:
        async with open_hub(mount / "data", disk_reserve_mb=20) as hub:
            session_id = await hub.create_session()
            for number in range(60):
                entry = {"key": str(number), "value": "x" * 250_000, "scope": "shared"}
                await hub.call("set_memory", session_id=session_id, **entry)
            disk = hub.server.services.quotas.disk
            free_bytes = shutil.disk_usage(mount).free
            (mount / "ballast").write_bytes(bytes(free_bytes - 12 * BYTES_PER_MB))
            await disk.check()
            refused = await hub.call("set_memory", key="k", value=1)
            assert refused["code"] == "STORAGE_FULL"
            await hub.call("delete_session", session_id=session_id)
            await disk.check()
            assert (await hub.call("set_memory", key="k", value=1))["success"]
