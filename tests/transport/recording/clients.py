"""The clients whose requests are recorded: what to install of each, and how it is used."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TIME_LIMIT_S = 120
PLACE = "shared"  # the server's name in the clients' settings


@dataclass(frozen=True)
class Target:
    """The server that is used, where the client is installed, and where it keeps what is its own."""

    url: str
    model_url: str
    key: str
    session: str
    folder: Path
    home: Path
    project: Path
    node: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key, "X-Agent-ID": "alice"}

    @property
    def key_alone(self) -> dict[str, str]:
        """Without a name of the caller, so that a Mcp-Session-Id names them."""
        return {"X-API-Key": self.key}


@dataclass(frozen=True)
class Run:
    """A command, whose path is one in the client's folder. `talk`: JSON-RPC messages for a server on standard input and
    output, each sent when the one before is answered."""

    command: Sequence[str]
    stdin: str = ""
    talk: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class Client:
    """`packages` are for npm, or for pip if `is_python`. `runs` may write settings into the home."""

    name: str
    packages: Sequence[str]
    runs: Callable[[Target], Sequence[Run]]
    is_python: bool = False


def _asked(target: Target, headers: dict[str, str], *modes: Any) -> str:
    asked = {"url": target.url, "headers": headers, "session": target.session, "modes": modes}
    return json.dumps({**asked, "folder": str(target.folder)})


def _python(*modes: str) -> Callable[[Target], Sequence[Run]]:
    command = ("venv/bin/python", str(HERE / "drive.py"))
    return lambda target: [
        Run(command, _asked(target, target.headers, *modes)),
        Run(command, _asked(target, target.key_alone, modes[0])),
    ]


def _typescript(package: str, *modes: Any) -> Callable[[Target], Sequence[Run]]:
    command = ("node", str(HERE / "drive.mjs"), package)
    return lambda target: [
        Run(command, _asked(target, target.headers, *modes)),
        Run(command, _asked(target, target.key_alone, modes[0])),
    ]


def _talk(session: str, version: str) -> list[dict[str, Any]]:
    """What a client says over standard input and output to a proxy."""
    uri = f"session://{session}"
    opening = {
        "protocolVersion": version,
        "capabilities": {"roots": {"listChanged": True}},
        "clientInfo": {"name": "some-client", "version": "1.0"},
    }
    asked: list[tuple[str, dict[str, Any] | None]] = [
        ("initialize", opening),
        ("notifications/initialized", None),
        ("ping", None),
        ("tools/list", None),
        ("tools/call", {"name": "list_sessions", "arguments": {}}),
        (
            "tools/call",
            {"name": "add_message", "arguments": {"session_id": session, "content": "é"}},
        ),
        (
            "tools/call",
            {
                "name": "get_messages",
                "arguments": {"session_id": session},
                "_meta": {"progressToken": 7},
            },
        ),
        ("tools/call", {"name": "add_message", "arguments": {"session_id": session}}),
        ("tools/call", {"name": "no_such_tool", "arguments": {}}),
        ("resources/list", {}),
        ("resources/templates/list", None),
        ("resources/read", {"uri": uri}),
        ("resources/read", {"uri": "session://session_none"}),
        ("prompts/list", None),
        ("prompts/get", {"name": "catch_up", "arguments": {"session_id": session}}),
        ("logging/setLevel", {"level": "info"}),
        ("notifications/roots/list_changed", None),
        ("notifications/cancelled", {"requestId": 3, "reason": "no longer wanted"}),
        ("tools/list", {}),
    ]
    messages = []
    for number, (method, params) in enumerate(asked):
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if not method.startswith("notifications/"):
            message["id"] = number
        if params is not None:
            message["params"] = params
        messages.append(message)
    return messages


def _run_mcp_proxy(target: Target) -> Sequence[Run]:
    start = ["venv/bin/mcp-proxy", "--transport", "streamablehttp"]
    runs = []
    for headers in (target.headers, target.key_alone):
        said = [part for name, value in headers.items() for part in ("--headers", name, value)]
        runs.append(Run([*start, *said, target.url], talk=_talk(target.session, "2025-06-18")))
    return runs


def _run_mcp_remote(target: Target) -> Sequence[Run]:
    start = ["node_modules/.bin/mcp-remote", target.url, "--allow-http", "--transport", "http-only"]
    runs = []
    for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
        headers = target.key_alone if version == "2025-06-18" else target.headers
        said = [part for name, value in headers.items() for part in ("--header", f"{name}:{value}")]
        runs.append(Run([*start, *said], talk=_talk(target.session, version)))
    return runs


def _run_inspector(target: Target) -> Sequence[Run]:
    start = ["node_modules/.bin/mcp-inspector", "--cli", "--server-url", target.url]
    start += ["--transport", "http", "--stored-auth-only", "--format", "json"]
    for name, value in target.headers.items():
        start += ["--header", f"{name}: {value}"]
    add = json.dumps({"session_id": target.session, "content": "From the Inspector."})
    call = ("--method", "tools/call", "--tool-name")
    asked: list[Sequence[str]] = [
        ("--method", "tools/list"),
        (*call, "list_sessions", "--tool-args-json", "{}"),
        (*call, "add_message", "--tool-args-json", add),
        (*call, "get_messages", "--tool-arg", f"session_id={target.session}", "limit=5"),
        (*call, "get_time", "--metadata", "purpose=recording"),
        (*call, "add_message", "--tool-args-json", "{}"),
        (*call, "no_such_tool", "--tool-args-json", "{}"),
        ("--method", "resources/list"),
        ("--method", "resources/templates/list"),
        ("--method", "resources/read", "--uri", f"session://{target.session}"),
        ("--method", "prompts/list"),
        (
            *("--method", "prompts/get", "--prompt-name", "catch_up"),
            *("--prompt-args", f"session_id={target.session}"),
        ),
        ("--method", "logging/setLevel", "--log-level", "info"),
    ]
    return [
        Run([*start, "--protocol-era", era, *more])
        for era in ("legacy", "auto", "modern")
        for more in (asked if era != "auto" else asked[:2])
    ]


def _run_claude(target: Target) -> Sequence[Run]:
    claude = "node_modules/@anthropic-ai/claude-code-linux-x64/claude"
    server = {"type": "http", "url": target.url, "headers": target.headers}
    config = target.home / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {PLACE: server}}))
    said = [part for name, value in target.headers.items() for part in ("-H", f"{name}: {value}")]
    return [
        Run([claude, "mcp", "add", "-s", "user", "--transport", "http", PLACE, target.url, *said]),
        Run([claude, "mcp", "list"]),
        Run(
            [
                *(claude, "--mcp-config", str(config), "--strict-mcp-config", "--tools", ""),
                *("--allowedTools", f"mcp__{PLACE}", "-p", "Use the tools."),
            ]
        ),
    ]


def _run_codex(target: Target) -> Sequence[Run]:
    folder = target.home / ".codex"
    folder.mkdir(exist_ok=True)
    headers = ", ".join(f'"{name}" = "{value}"' for name, value in target.headers.items())
    (folder / "config.toml").write_text(f"""
model = "scripted"
model_provider = "scripted"
approval_policy = "never"
[model_providers.scripted]
name = "scripted"
base_url = "{target.model_url}/v1"
wire_api = "responses"
[mcp_servers.{PLACE}]
url = "{target.url}"
http_headers = {{ {headers} }}
default_tools_approval_mode = "approve"
""")
    start = ["node_modules/.bin/codex"]
    return [
        Run([*start, "mcp", "list"]),
        Run([*start, "exec", "--skip-git-repo-check", "Use the tools."]),
    ]


def _run_gemini(target: Target) -> Sequence[Run]:
    folder = target.home / ".gemini"
    folder.mkdir(exist_ok=True)
    settings = {
        "mcpServers": {PLACE: {"httpUrl": target.url, "headers": target.headers, "trust": True}},
        "security": {
            "auth": {"selectedType": "gemini-api-key"},
            "folderTrust": {"enabled": False},
        },
        "telemetry": {"enabled": False},
        "privacy": {"usageStatisticsEnabled": False},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    start = ["node_modules/.bin/gemini"]
    return [
        Run([*start, "mcp", "list"]),
        Run([*start, "--skip-trust", "--yolo", "-m", "gemini-2.5-flash", "-p", "Use the tools."]),
    ]


CLIENTS = (
    Client("claude-code-2.1.332", ["@anthropic-ai/claude-code@2.1.332"], _run_claude),
    Client("codex-0.171.0", ["@openai/codex@0.171.0"], _run_codex),
    Client("gemini-cli-0.61.0", ["@google/gemini-cli@0.61.0"], _run_gemini),
    Client("inspector-2.12.0", ["@modelcontextprotocol/inspector@2.12.0"], _run_inspector),
    Client("mcp-proxy-0.13.0", ["mcp-proxy==0.13.0", "mcp==1.30.0"], _run_mcp_proxy, True),
    Client("mcp-remote-0.15.1", ["mcp-remote@0.15.1"], _run_mcp_remote),
    Client("python-sdk-1.9.4", ["mcp==1.9.4", "pydantic==2.11.10"], _python(""), True),
    Client("python-sdk-1.30.0", ["mcp==1.30.0"], _python(""), True),
    Client("python-sdk-2.3.0", ["mcp==2.3.0"], _python("legacy", "auto", "2026-07-28"), True),
    Client(
        "typescript-sdk-1.11.5",
        ["sdk-1@npm:@modelcontextprotocol/sdk@1.11.5"],
        _typescript("sdk-1", ""),
    ),
    Client(
        "typescript-sdk-1.23.0",
        ["sdk-1@npm:@modelcontextprotocol/sdk@1.23.0"],
        _typescript("sdk-1", ""),
    ),
    Client(
        "typescript-sdk-1.32.2",
        ["sdk-1@npm:@modelcontextprotocol/sdk@1.32.2"],
        _typescript("sdk-1", ""),
    ),
    Client(
        "typescript-sdk-2.4.0",
        ["sdk-2@npm:@modelcontextprotocol/client@2.4.0"],
        _typescript("sdk-2", "legacy", "auto", {"pin": "2026-07-28"}),
    ),
)


def install(client: Client, folder: Path, environment: dict[str, str]) -> None:
    """Into a folder of its own, once."""
    stamp = folder / ".installed"
    wanted = "\n".join(client.packages)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if client.is_python:
        commands = [
            ["python3", "-m", "venv", "venv"],
            ["venv/bin/python", "-m", "pip", "-q", "--disable-pip-version-check", "install"],
        ]
    else:
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--silent", "--ignore-scripts"]
        commands = [["npm", "install", *quiet]]
    commands[-1] += client.packages
    for command in commands:
        subprocess.run(command, cwd=folder, env=environment, check=True)
    stamp.write_text(wanted)


async def use(client: Client, target: Target) -> AsyncIterator[str]:
    """Run the client against the target; yields what each command printed.

    It sees nothing of this process's environment but PATH, and a home of its own.
    """
    environment = {
        "PATH": f"{target.node}{os.pathsep}/usr/local/bin:/usr/bin:/bin",
        "HOME": str(target.home),
        "ANTHROPIC_BASE_URL": target.model_url,
        "ANTHROPIC_API_KEY": "none",
        "ENABLE_TOOL_SEARCH": "false",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "GOOGLE_GEMINI_BASE_URL": target.model_url,
        "GEMINI_API_KEY": "none",
    }
    for run in client.runs(target):
        process = await asyncio.create_subprocess_exec(
            *_locate(run.command, target.folder),
            cwd=target.project,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if not run.talk else subprocess.DEVNULL,
            limit=2**24,
        )
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                if run.talk:
                    await _converse(process, run.talk)
                    yield f"{client.name}: {len(run.talk)} messages\n"
                else:
                    printed, _ = await process.communicate(run.stdin.encode())
                    yield f"{client.name}: {process.returncode}\n{printed.decode()[-1500:]}\n"
        except TimeoutError:
            yield f"{client.name}: stopped after {TIME_LIMIT_S} s\n"
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def _locate(command: Sequence[str], folder: Path) -> list[str]:
    program = folder / command[0]
    return [str(program) if program.exists() else command[0], *command[1:]]


async def _converse(
    process: asyncio.subprocess.Process, messages: Sequence[dict[str, Any]]
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    for message in messages:
        process.stdin.write(json.dumps(message).encode() + b"\n")
        await process.stdin.drain()
        while "id" in message:
            line = await process.stdout.readline()
            assert line, "it ended before it answered"
            if line.startswith(b"{") and json.loads(line).get("id") == message["id"]:
                break
    process.stdin.close()
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.terminate()
        await process.wait()
