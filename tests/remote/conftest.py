"""A server in a process of its own, and programs that use it as clients start them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import COMMAND, PATIENCE_S, ServerProcess, make_env, make_serve


class Hub:
    """The server, and its agents as others call for them."""

    def __init__(self, server: ServerProcess, env: dict[str, str], directory: Path) -> None:
        self.server = server
        self.directory = directory
        state = directory / "state"
        self.env = env | {"SCS_DATA_DIR": env["DATA_DIR"], "XDG_STATE_HOME": str(state)}
        self.key = server.secrets["API_KEY"]
        self._http = httpx.Client(base_url=server.url, headers={"X-API-Key": self.key})

    def call(self, tool: str, agent: str, **arguments: Any) -> Any:
        answer = self._http.post(f"/mcp/tool/{tool}", json=arguments, headers={"X-Agent-ID": agent})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def session(self, agent: str = "bob") -> str:
        made: str = self.call("create_session", agent, purpose="p")["session_id"]
        return made

    def say(self, session_id: str, content: str, agent: str = "bob", **more: Any) -> int:
        """Add a message; its seq."""
        answer = self.call("add_message", agent, session_id=session_id, content=content, **more)
        seq: int = answer["seq"]
        return seq

    def start(self, *arguments: str, agent: str | None = "alice", **more: str) -> Started:
        """Start a command as an agent."""
        env = self.env | more | ({} if agent is None else {"SCS_AGENT_ID": agent})
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=env,
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def run(
        self, *arguments: str, stdin: str = "", agent: str | None = "alice", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as an agent to its end."""
        process = self.start(*arguments, agent=agent, **more)
        try:
            out, err = process.communicate(stdin, timeout=PATIENCE_S)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def close(self) -> None:
        self._http.close()


Started = subprocess.Popen[str]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """For the tests of a module. The working directory has an `.env` that nothing may read."""
    directory = tmp_path_factory.mktemp("hub")
    env = make_env(directory)
    with make_serve(env, directory)() as server:
        (directory / ".env").write_text("SCS_URL=http://127.0.0.1:1\nSCS_API_KEY=of-the-project\n")
        made = Hub(server, env, directory)
        yield made
        made.close()
