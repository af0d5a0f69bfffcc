"""A server in a process of its own, and programs that use it as clients start them."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import PATIENCE_S, ServerProcess, make_env, make_serve
from tests.forked import ForkedProcess, run_forked


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

    def servers_of(self, agent: str) -> dict[str, Any]:
        """The file by which Claude Code learns of MCP servers."""
        headers = {"X-API-Key": self.key, "X-Agent-ID": agent}
        entry = {"type": "http", "url": f"{self.server.url}/mcp", "headers": headers}
        return {"mcpServers": {"shared-context": entry}}

    def session(self, agent: str = "bob") -> str:
        made: str = self.call("create_session", agent, purpose="p")["session_id"]
        return made

    def say(self, session_id: str, content: str, agent: str = "bob", **more: Any) -> int:
        """Add a message; its seq."""
        answer = self.call("add_message", agent, session_id=session_id, content=content, **more)
        seq: int = answer["seq"]
        return seq

    def start(self, *arguments: str, agent: str | None = "alice", **more: str) -> ForkedProcess:
        """Start a command as an agent."""
        return ForkedProcess(arguments, self._env_of(agent, more), self.directory, has_stdin=True)

    def run(
        self, *arguments: str, stdin: str = "", agent: str | None = "alice", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as an agent to its end."""
        env = self._env_of(agent, more)
        return run_forked(arguments, env, self.directory, PATIENCE_S, stdin=stdin)

    def _env_of(self, agent: str | None, more: dict[str, str]) -> dict[str, str]:
        return self.env | more | ({} if agent is None else {"SCS_AGENT_ID": agent})

    def close(self) -> None:
        self._http.close()


class Lines:
    """The lines that a process prints, as they come. The process is killed at the end."""

    def __init__(self, process: ForkedProcess) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.process.stdout as stream:
            for line in stream:
                self._lines.put(line.removesuffix("\n"))

    def next(self, timeout: float = PATIENCE_S) -> str:
        return self._lines.get(timeout=timeout)

    def end(self) -> tuple[int, list[str], str]:
        """Wait for the end of the process; its exit code, the lines left, and stderr."""
        err = self.process.stderr.read()
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code, list(self._lines.queue), err

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        self.process.stdin.close()
        self.process.stderr.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """For the tests of a module. The working directory has an `.env` that nothing may read."""
    directory = tmp_path_factory.mktemp("hub")
    env = make_env(directory)
    with make_serve(env, directory)() as server:
        (directory / ".env").write_text(
            "SCS_URL=http://127.0.0.1:1\nSCS_API_KEY=the-key-of-the-project\n"
        )
        made = Hub(server, env, directory)
        yield made
        made.close()
