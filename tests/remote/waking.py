"""Show that clients from npm are woken, with a scripted model in place of a real one:

    .venv/bin/python -m tests.remote.waking

It prints what each client sent to its model because a message came. The clients are installed into
.corpus-clients, as for `make record-corpus`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from tests.cli.conftest import COMMAND, make_env, make_serve
from tests.conformance.run import find_node, install_node
from tests.remote.conftest import Hub
from tests.transport.recording.__main__ import HOME
from tests.transport.recording.clients import CLIENTS, install
from tests.transport.recording.model import Call, ScriptedModel
from tests.transport.recording.recorder import serve

PATIENCE_S = 120
BY_NAME = {client.name.rpartition("-")[0]: client for client in CLIENTS}
CLAUDE = "node_modules/@anthropic-ai/claude-code-linux-x64/claude"
CODEX = "node_modules/.bin/codex"
CONFIG = """
model = "scripted"
model_provider = "scripted"
approval_policy = "never"
[model_providers.scripted]
name = "scripted"
base_url = "{url}/v1"
wire_api = "responses"
"""


class Listening:
    """A model that keeps what it is asked, and tells when it was asked for the first time. It does
    not answer before it may."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.asked: list[Any] = []
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        messages = []
        while scope["type"] == "http":
            messages.append(await receive())
            body += messages[-1].get("body", b"")
            if not messages[-1].get("more_body"):
                break

        async def again() -> Any:
            return messages.pop(0) if messages else await receive()

        if scope["type"] == "http" and scope["path"].endswith(("/messages", "/responses")):
            self.asked.append(json.loads(body))
            self.is_asked.set()
            await self.may_answer.wait()
        await self._app(scope, again, send)


async def show(
    hub: Hub,
    name: str,
    agent: str,
    command: list[str],
    *more: str,
    calls: Sequence[Call] = (),
    is_working: bool = False,
    turns: int = 1,
    **variables: str,
) -> bool:
    """Run a client with a scripted model, say something while its agent works or once it is idle,
    and print what its model was told of it. `more`: options of client-config. `turns`: the
    client's requests to its model before anything is said. `variables`: of the
    client's environment."""
    said = f"Please review the parser, @{agent}."
    client = BY_NAME[name]
    node = find_node() or install_node()
    path = f"{node}{os.pathsep}{os.environ['PATH']}"
    install(client, HOME / client.name, dict(os.environ) | {"PATH": path})
    listening = Listening(ScriptedModel(calls).app)
    with tempfile.TemporaryDirectory(dir=Path.home()) as home:
        env = hub.env | {"HOME": home, "PATH": path, "XDG_STATE_HOME": f"{home}/state"}
        client_name = "claude" if name == "claude-code" else name
        configure = [*COMMAND, "client-config", client_name, "--write", "--agent-id", agent]
        subprocess.run([*configure, *more], env=env, capture_output=True, check=True)
        settings = Path(home) / ".claude" / "settings.json"
        if settings.exists():  # `claude -p` has no user
            settings.write_text(settings.read_text().replace("--wake", "--wake --unattended"))
        async with serve(listening) as url:
            env |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none"}
            env |= {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "ENABLE_TOOL_SEARCH": "false"}
            env |= variables
            if name == "claude-code":  # its entry for a server is made by a command of its own
                servers = Path(home) / "mcp.json"
                servers.write_text(json.dumps(hub.servers_of(agent)))
                command = [*command, "--mcp-config", str(servers), "--strict-mcp-config"]
            if name == "codex":
                config = Path(home) / ".codex" / "config.toml"
                config.write_text(CONFIG.format(url=url) + config.read_text())
            process = await asyncio.create_subprocess_exec(
                HOME / client.name / command[0],
                *command[1:],
                cwd=home,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await listening.is_asked.wait()
                    session = hub.session()
                    if is_working:
                        hub.say(session, said)
                    listening.may_answer.set()
                    while process.returncode is None and said not in json.dumps(listening.asked):
                        await asyncio.sleep(5)
                        if not is_working and len(listening.asked) >= turns:
                            hub.say(session, said)  # again, since a watcher begins at some time
            except TimeoutError:
                print(f"{client.name}: not woken within {PATIENCE_S} s")
            finally:
                with suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
    how = " ".join((*more, *(call for call, _ in calls)))
    for number, asked in enumerate(listening.asked):
        text = json.dumps(asked, ensure_ascii=False)
        at = text.find(said)
        told = "nothing of it" if at < 0 else f"… {text[max(0, at - 300) : at + 120]} …"
        when = "at work" if is_working else "idle"
        print(f"{client.name} {how}, {when}, request {number}: {told}\n", flush=True)
    return said in json.dumps(listening.asked)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        env = make_env(Path(directory))
        with make_serve(env, Path(directory))() as server:
            hub = Hub(server, env, Path(directory))
            watch = [*COMMAND, "watch", "all", "--mentions-me", "--agent-id", "alice"]
            arguments = {"command": " ".join(watch), "description": "messages"}
            monitor = ("Monitor", {**arguments, "timeout_ms": 100_000, "persistent": False})
            claude = [CLAUDE, "-p", "Wait for messages.", "--allowedTools", "Monitor"]
            codex = [
                CODEX,
                "exec",
                "--skip-git-repo-check",
                "--dangerously-bypass-hook-trust",
                "Go.",
            ]
            wait = ("wait_for_messages", {"mentions_me": True, "timeout_seconds": 3600})
            waiting = [*claude[:-1], "mcp__shared-context__wait_for_messages"]
            soon = {"CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS": "3000"}  # instead of two minutes
            shown = [
                await show(hub, "claude-code", "alice", claude, "--with-watch", calls=[monitor]),
                await show(hub, "claude-code", "carol", claude, "--with-hook"),
                await show(hub, "claude-code", "dave", claude, "--with-hook", is_working=True),
                await show(hub, "codex", "erin", codex, "--with-hook", is_working=True),
                await show(hub, "claude-code", "frank", waiting, calls=[wait], turns=2, **soon),
                # Codex gives a tool a minute unless its configuration says otherwise.
                await show(
                    hub,
                    "codex",
                    "grace",
                    codex,
                    calls=[(wait[0], wait[1] | {"timeout_seconds": 50})],
                ),
            ]
            hub.close()
    print(f"woken: {shown.count(True)} of {len(shown)}")


if __name__ == "__main__":
    asyncio.run(main())
