"""A real server in a process of its own, from the development environment.

Nothing of the server can be imported here: the frameworks do not go beside it.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared_context_client import SyncSharedContextClient

ROOT = Path(__file__).parents[2]
SERVER = ROOT / ".venv/bin/scs"
PAGE = ROOT / "docs/integrations.md"
API_KEY = "the-ordinary-key-0123456789"
STOP_S = 10.0

RunExample = Callable[..., None]

# CrewAI reports to its makers and asks its user whether to, unless it is told not to.
os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false"}
os.environ |= {"OTEL_SDK_DISABLED": "true", "CREWAI_TESTING": "true"}


def _tell_causes(error: BaseException) -> str:
    inner = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    inner += [cause for cause in (error.__cause__, error.__context__) if cause is not None]
    return " / ".join([str(error), *map(_tell_causes, inner)])


@pytest.fixture
def causes() -> Callable[[BaseException], str]:
    """What an error says, with all that are inside it and behind it."""
    return _tell_causes


@dataclass(frozen=True)
class Server:
    """What a client has to know. `wrong` are headers whose key is not the server's."""

    url: str
    key: str = API_KEY

    @property
    def mcp_url(self) -> str:
        return f"{self.url}/mcp"

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key, "X-Agent-ID": "framework"}

    @property
    def wrong(self) -> dict[str, str]:
        return {**self.headers, "X-API-Key": "not-the-key"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a framework stores, it stores for one test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path / "crewai"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of the run."""
    assert SERVER.exists(), f"{SERVER} is missing; run: make setup"
    directory = tmp_path_factory.mktemp("server")
    variables = {
        "API_KEY": API_KEY,
        "HTTP_PORT": "0",
        "DATA_DIR": str(directory / "data"),
        "RATE_LIMIT": "off",
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
    }
    process = subprocess.Popen(
        [str(SERVER), "serve"],
        env=variables,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(_read_url(process))
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


def _read_url(process: subprocess.Popen[str]) -> str:
    """The address the server says on stderr, which is read to its end so that it never blocks."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:  # ends when the process does; pytest-timeout bounds the rest
        seen.append(line)
        if found := re.search(r"(http://[^/\s\"]+)/health", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return found[1]
    raise AssertionError("the server ended:\n" + "".join(seen))


@pytest.fixture
def client(server: Server) -> Iterator[SyncSharedContextClient]:
    """Another agent, who sees what the framework's agent has done."""
    with SyncSharedContextClient(server.url, api_key=server.key, agent_id="observer") as client:
        yield client


@pytest.fixture
def session_id(client: SyncSharedContextClient) -> str:
    return client.create_session("Plan the release").session_id


@pytest.fixture
def run_example(server: Server, monkeypatch: pytest.MonkeyPatch) -> RunExample:
    """Run the block of docs/integrations.md behind `<!-- mark: tested -->` as it stands there."""

    def run(mark: str, **names: Any) -> None:
        page = PAGE.read_text(encoding="utf-8")
        found = re.search(rf"<!-- {mark}: tested -->\s+```python\n(.*?)```", page, re.DOTALL)
        assert found is not None
        monkeypatch.setenv("SCS_URL", server.url)
        monkeypatch.setenv("SCS_API_KEY", server.key)
        exec(compile(found[1], f"{PAGE.name}:{mark}", "exec"), {"__name__": "__main__", **names})

    return run
