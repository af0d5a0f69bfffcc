"""`scs demo`: agents without a model, on a running server or one of its own, and nothing is left of them."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from shared_context_server.cli.demo.agents import DemoAgent
from shared_context_server.cli.demo.run import ENDS_AT, Demo
from shared_context_server.cli.demo.script import PLANNER, WORKERS
from shared_context_server.cli.demo.targets import Target
from shared_context_server.remote.calls import call_tools
from tests.cli.conftest import PATIENCE_S, Run, Serve
from tests.forked import ForkedProcess
from tests.until import until


def call(server: Target, agent_id: str, tool: str, **arguments: Any) -> dict[str, Any]:
    access = server.access_of(agent_id)
    [result] = call_tools(access, [(tool, arguments)], time.monotonic() + PATIENCE_S)
    assert result["success"], result
    return result


async def test_the_agents_block_each_other_and_leave_nothing_behind(serve: Serve) -> None:
    lines: list[str] = []
    with serve() as running:
        server = Target(running.url, running.secrets["ADMIN_API_KEY"])
        killed, other = (
            call(server, PLANNER, "create_session", purpose="x", metadata={ENDS_AT: ends_at})
            for ends_at in (time.time() - 1, time.time() + 3600)
        )
        demo = Demo(duration_s=600, speed=12, seed=1, tell=lines.append)
        thread = threading.Thread(target=demo.run, args=(server,))
        thread.start()
        try:
            blocked: dict[str, Any] = {}

            def is_one_blocked() -> bool:
                agents = call(server, "me", "list_agents")["agents"]
                found = [a for a in agents if (a["waits_for"] or {}).get("kind") == "lease"]
                blocked.update(found[0] if found else {})
                return bool(found)

            await until(is_one_blocked)
            await until(lambda: any("decides" in line for line in lines))
        finally:
            demo.stop()
            thread.join(PATIENCE_S)
        assert not thread.is_alive()
        sessions = call(server, "me", "list_sessions", status="all")["sessions"]
        agents = call(server, "me", "list_agents")["agents"]
    assert blocked["agent_id"] in WORKERS
    assert blocked["state"] == "blocked"
    assert [session["session_id"] for session in sessions] == [other["session_id"]]
    assert killed["session_id"] != other["session_id"]
    assert {a["state"] for a in agents if a["agent_id"].startswith("demo-")} == {"done"}
    assert not any(agent["holds"] for agent in agents)
    assert "its session is deleted" in lines[-1]


def test_without_a_server_it_runs_one_and_ctrl_c_removes_both(
    env: dict[str, str], tmp_path: Path
) -> None:
    (temporary := tmp_path / "tmp").mkdir()
    for name in ("scs-demo-killed", "scs-demo-running"):
        (temporary / name).mkdir()
    with FileLock(temporary / "scs-demo-running" / "demo.lock"):
        # SCS_API_KEY belongs to another server, and must not be sent to this one.
        variables = {"TMPDIR": str(temporary), "SCS_API_KEY": "of-another-server"}
        process = ForkedProcess(["demo"], env | variables, tmp_path)
        try:
            with process.stdout as stdout, process.stderr as stderr:
                said = []
                for line in stdout:
                    said.append(line)
                    if "adds three tasks" in line:
                        break
                process.send_signal(signal.SIGINT)
                said += [*stdout, *stderr]
            assert process.wait(PATIENCE_S) == 0, said
        finally:
            process.kill()
    assert any("http://127.0.0.1:" in line for line in said)
    assert [path.name for path in temporary.glob("scs-demo*")] == ["scs-demo-running"]


def test_the_same_seed_makes_the_same_choices() -> None:
    def choices(seed: int) -> list[float]:
        agent = DemoAgent(
            Target("http://127.0.0.1:1", None).access_of(PLANNER),
            seed=seed,
            speed=1,
            stopping=threading.Event(),
            tell=lambda name, text: None,
        )
        return [agent.chance.random() for _ in range(5)]

    assert choices(1) == choices(1) != choices(2)


@pytest.mark.parametrize(
    "options, said",
    [
        (("--url", "http://127.0.0.1:1"), "No server answers at http://127.0.0.1:1"),
        (("--speed", "0"), "--speed must be more than 0"),
        (("--duration", "100000"), "--duration must be"),
    ],
)
def test_what_it_cannot_do_is_one_line(scs: Run, options: tuple[str, ...], said: str) -> None:
    answer = scs("demo", *options)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1
