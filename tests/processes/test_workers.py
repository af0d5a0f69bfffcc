"""`serve --workers N`: several processes, one server."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvicorn

from shared_context_server.cli.workers import Worker
from tests.cli.conftest import PATIENCE_S, STOP_S, Run, Serve, ServerProcess
from tests.processes.test_load import call, headers_of, read_all

AGENTS = 10
MESSAGES = 60  # of each agent
MAX_CONNECTIONS = 200  # until one is with the worker that is wanted


def find_origin(server: ServerProcess) -> psutil.Process | None:
    """The process that the workers are forked from."""
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # a zombie is one of these
            if "forkserver" in " ".join(child.cmdline()):
                return child
    return None


def worker_pids(server: ServerProcess) -> set[int]:
    """Of those that live."""
    pids: set[int] = set()
    origin = find_origin(server)
    for child in origin.children() if origin is not None else ():
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                pids.add(child.pid)
    return pids


def find_worker(server: ServerProcess, answer: httpx.Response) -> int | None:
    """Whose connection the answer came over."""
    _, port = answer.extensions["network_stream"].get_extra_info("client_addr")
    for pid in worker_pids(server):
        for connection in psutil.Process(pid).net_connections("tcp"):
            if connection.raddr and connection.raddr[1] == port:
                return pid
    return None


@asynccontextmanager
async def client_of(server: ServerProcess, agent_id: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with one connection, to whichever worker takes it."""
    async with httpx.AsyncClient(
        base_url=server.url,
        headers=headers_of(server, agent_id),
        limits=httpx.Limits(max_connections=1),
        timeout=60,
    ) as client:
        yield client


@asynccontextmanager
async def clients_of_each(
    server: ServerProcess, agent_id: str
) -> AsyncIterator[dict[int, httpx.AsyncClient]]:
    """A client on each worker, by the worker's process id."""
    pids = worker_pids(server)
    found: dict[int, httpx.AsyncClient] = {}
    async with AsyncExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            client = await stack.enter_async_context(client_of(server, agent_id))
            pid = find_worker(server, await client.get("/health"))
            if pid is not None:
                found.setdefault(pid, client)
            if found.keys() == pids:
                break
        assert found.keys() == pids
        yield found


async def until_replaced(server: ServerProcess, gone: set[int], count: int) -> set[int]:
    """The workers, once there are `count` and none of them is one of `gone`."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        pids = worker_pids(server)
        if len(pids) == count and not pids & gone:
            return pids
        await asyncio.sleep(0.05)
    raise AssertionError(f"not replaced: {gone}")


async def test_reads_after_writes_hold_and_waits_are_answered_across_workers(
    serve: Serve,
) -> None:
    with serve("--workers", "2") as server:
        async with clients_of_each(server, "alice") as clients:
            assert len(clients) == 2
            one, other = clients.values()
            made = await call(one, "create_session", purpose="across")
            session_id = made["session_id"]
            best_s = PATIENCE_S
            for seq in range(1, 11):
                waiting = asyncio.create_task(
                    call(
                        other,
                        "wait_for_messages",
                        session_id=session_id,
                        after_seq=seq - 1,
                        timeout_seconds=30,
                        include_own=True,
                    )
                )
                await asyncio.sleep(0.02)  # so that most of the time it does wait
                added = await call(one, "add_message", session_id=session_id, content="news")
                written = time.perf_counter()
                assert [m["seq"] for m in (await waiting)["messages"]] == [seq]
                best_s = min(best_s, time.perf_counter() - written)
                page = await call(other, "get_messages", session_id=session_id)
                assert page["messages"][-1]["id"] == added["message_id"]
                one, other = other, one
            assert best_s < 0.1
        assert server.stop() == 0


def rpc(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def test_a_client_keeps_its_name_on_every_worker_and_after_they_are_replaced(
    serve: Serve,
) -> None:
    info = {"name": "cursor", "version": "1"}
    started = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
    create = rpc("tools/call", {"name": "create_session", "arguments": {"purpose": "x"}})
    with serve("--workers", "2") as server:
        keyed = {"X-API-Key": server.secrets["API_KEY"], "Accept": "application/json"}
        async with httpx.AsyncClient(base_url=server.url, headers=keyed) as client:
            answer = await client.post("/mcp", json=rpc("initialize", started))
        named = {"Mcp-Session-Id": answer.headers["mcp-session-id"]}

        async def assert_named() -> None:
            async with clients_of_each(server, "another") as clients:
                for client in clients.values():
                    client.headers = httpx.Headers(keyed | named)
                    made = (await client.post("/mcp", json=create)).json()
                    assert made["result"]["structuredContent"]["created_by"] == "cursor"

        await assert_named()
        first = worker_pids(server)
        server.process.send_signal(signal.SIGHUP)
        await until_replaced(server, first, 2)
        await assert_named()


async def test_one_scrape_counts_the_calls_of_all_workers(serve: Serve) -> None:
    with serve("--workers", "2", METRICS_PUBLIC="true") as server:
        async with clients_of_each(server, "alice") as clients:
            for client in clients.values():
                for _ in range(5):
                    await call(client, "list_sessions")
            for client in clients.values():
                text = (await client.get("/metrics")).text
                assert 'mcp_requests_total{status="200",tool="list_sessions"} 10.0' in text
                assert 'mcp_request_duration_seconds_count{tool="list_sessions"} 10.0' in text
                assert text.count("mcp_active_sessions 0.0") == 1
        victim = next(iter(worker_pids(server)))
        psutil.Process(victim).kill()
        await until_replaced(server, {victim}, 2)
        async with client_of(server, "alice") as client:
            text = (await client.get("/metrics")).text
        assert 'mcp_requests_total{status="200",tool="list_sessions"} 10.0' in text


async def write_through(server: ServerProcess, session_id: str, agent: int) -> list[str]:
    """Messages, each repeated with its key until it is acknowledged; their contents."""
    contents = [f"{agent}/{number}" for number in range(MESSAGES)]
    async with client_of(server, f"agent-{agent}") as client:
        for content in contents:
            await retry(
                client,
                "add_message",
                session_id=session_id,
                content=content,
                idempotency_key=content,
            )
    return contents


async def follow(server: ServerProcess, session_id: str, agent: int, count: int) -> list[int]:
    """The seqs that one who waits by cursor is shown, up to `count` messages."""
    seqs: list[int] = []
    async with client_of(server, f"reader-{agent}") as client:
        while len(seqs) < count:
            answer = await retry(
                client,
                "wait_for_messages",
                session_id=session_id,
                after_seq=seqs[-1] if seqs else 0,
                timeout_seconds=5,
                limit=7,
            )
            seqs += [message["seq"] for message in answer["messages"]]
    return seqs


async def retry(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    """The answer, however many connections break before there is one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                answer = await client.post(f"/mcp/tool/{tool}", json=arguments)
            except httpx.TransportError:
                continue
            if answer.status_code != 503:  # a worker that is being replaced
                assert answer.status_code == 200, answer.text
                body: dict[str, Any] = answer.json()
                return body


async def test_a_worker_killed_under_load_costs_its_clients_a_retry(serve: Serve) -> None:
    """Nothing is lost, nothing doubled, and who waits by cursor is shown each message once."""
    with serve("--workers", "2") as server:
        async with client_of(server, "alice") as client:
            session_id = (await call(client, "create_session", purpose="kill"))["session_id"]
        writers = [
            asyncio.create_task(write_through(server, session_id, agent)) for agent in range(AGENTS)
        ]
        readers = [
            asyncio.create_task(follow(server, session_id, agent, AGENTS * MESSAGES))
            for agent in range(6)
        ]
        await follow(server, session_id, len(readers), AGENTS * MESSAGES // 4)
        victim = next(iter(worker_pids(server)))
        psutil.Process(victim).kill()
        written = {content for task in writers for content in await task}
        for task in readers:
            assert await task == list(range(1, AGENTS * MESSAGES + 1))
        await until_replaced(server, {victim}, 2)
        async with client_of(server, "alice") as client:
            messages = await read_all(client, session_id)
        assert {message["content"] for message in messages} == written
        assert len(messages) == len(written) == AGENTS * MESSAGES
        assert server.stop() == 0
    assert "Traceback" not in server.stderr


@pytest.mark.parametrize(
    "sig, is_for_all",
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
    ids=["SIGTERM", "SIGTERM to all, as of systemd", "SIGINT to all, as of a terminal"],
)
async def test_a_signal_ends_all_workers_with_success_though_some_wait(
    serve: Serve, sig: signal.Signals, is_for_all: bool
) -> None:
    with serve("--workers", "2") as server:
        pids = worker_pids(server)
        async with clients_of_each(server, "alice") as clients:
            first = next(iter(clients.values()))
            session_id = (await call(first, "create_session", purpose="end"))["session_id"]
            waiting = [
                asyncio.create_task(
                    client.post(
                        "/mcp/tool/wait_for_messages",
                        json={"session_id": session_id, "timeout_seconds": 60},
                    )
                )
                for client in clients.values()
            ]
            await asyncio.sleep(0.2)
            if is_for_all:
                for process in psutil.Process(server.process.pid).children(recursive=True):
                    process.send_signal(sig)
            assert await asyncio.to_thread(server.stop, sig) == 0
            assert [(await answer).status_code for answer in waiting] == [503, 503]
        assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "Traceback" not in server.stderr
    assert len(re.findall(r"^  health ", server.stderr, re.MULTILINE)) == 1


async def test_sighup_replaces_the_workers_while_calls_are_answered(serve: Serve) -> None:
    with serve("--workers", "2") as server:
        before = worker_pids(server)
        server.process.send_signal(signal.SIGHUP)
        replacing = asyncio.create_task(until_replaced(server, before, 2))
        while not replacing.done():
            async with client_of(server, "alice") as client:
                await call(client, "list_sessions")
            await asyncio.sleep(0.02)  # the new ones need the processor too
        await replacing
        assert server.stop() == 0


async def test_workers_end_with_a_supervisor_that_was_killed(serve: Serve) -> None:
    with serve("--workers", "2") as server:
        workers = [psutil.Process(pid) for pid in worker_pids(server)]
        server.process.kill()
        server.process.wait(STOP_S)
        _, alive = await asyncio.to_thread(psutil.wait_procs, workers, STOP_S)
        assert not alive


async def test_workers_are_replaced_when_the_process_that_they_are_forked_from_was_killed(
    serve: Serve,
) -> None:
    with serve("--workers", "2") as server:
        workers = [psutil.Process(pid) for pid in worker_pids(server)]
        origin = find_origin(server)
        assert origin is not None
        origin.kill()
        await until_replaced(server, {worker.pid for worker in workers}, 2)
        async with client_of(server, "alice") as client:
            await call(client, "list_sessions")
        _, alive = await asyncio.to_thread(psutil.wait_procs, workers, PATIENCE_S)
        assert not alive
        assert server.stop() == 0


def test_the_end_of_a_worker_is_heard_by_whoever_waits_for_its_answer() -> None:
    worker = Worker(uvicorn.Config("none:none"), [])
    worker.start()
    worker.process.kill()
    assert worker.parent_conn.poll(PATIENCE_S)
    assert not worker.is_ready()
    worker.join()


def test_a_session_in_a_process_and_several_processes_are_refused(scs: Run) -> None:
    answer = scs("serve", "--workers", "2", MCP_SESSIONS="stateful")
    assert answer.returncode == 2
    assert "MCP_SESSIONS" in answer.stderr


def test_a_path_of_temporary_files_that_no_socket_can_have_is_refused(
    scs: Run, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    answer = scs("serve", "--workers", "2", HTTP_PORT="0", TMPDIR=str(long))
    assert answer.returncode == 2
    assert "TMPDIR" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("option", [["--transport", "stdio"], ["--reload"]])
def test_workers_go_with_neither_stdio_nor_reload(scs: Run, option: list[str]) -> None:
    answer = scs("serve", "--workers", "2", *option)
    assert answer.returncode == 2


def test_stdio_does_not_mind_the_setting(scs: Run) -> None:
    assert scs("serve", "--transport", "stdio", WORKERS="4").returncode == 0
