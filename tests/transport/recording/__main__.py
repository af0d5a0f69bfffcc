"""Record the corpus anew: install each client, let it use a server, keep the requests that it sends.

    make record-corpus                              # every client
    make record-corpus ARGS="codex-0.171.0"         # one

Everything is installed into .corpus-clients, which git ignores.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import httpx

from shared_context_server.server import open_server
from shared_context_server.settings import Settings
from tests.conformance.run import find_node, install_node
from tests.transport.recording.clients import CLIENTS, Client, Target, install, use
from tests.transport.recording.model import ScriptedModel
from tests.transport.recording.recorder import KEY, SESSION, Recorder, serve

CORPUS = Path(__file__).parents[1] / "corpus"
HOME = Path(__file__).parents[3] / ".corpus-clients"
API_KEY = "key-" + "r" * 40
CALLED = (
    ("list_sessions", {}),
    ("add_message", {"session_id": "", "content": "From an agent."}),
    ("get_messages", {"session_id": "", "limit": 5}),
    ("add_message", {"session_id": ""}),
    ("get_memory", {"key": "missing"}),
)


async def record(client: Client, node: Path) -> int:
    folder = HOME / client.name
    install(client, folder, os.environ | {"PATH": f"{node}{os.pathsep}{os.environ['PATH']}"})
    with tempfile.TemporaryDirectory() as scratch:
        home, project = Path(scratch) / "home", Path(scratch) / "project"
        home.mkdir()
        project.mkdir()
        settings = Settings(
            data_dir=Path(scratch) / "data", api_key=API_KEY, jwt_secret_key="s" * 40
        )
        async with open_server(settings) as server:
            secrets = [(API_KEY, KEY), (scratch, "/home/user")]
            recorder = Recorder(server.app, secrets)
            async with serve(recorder) as url, httpx.AsyncClient(base_url=url) as http:
                made = await http.post(
                    "/mcp/tool/create_session",
                    json={"purpose": "Recording."},
                    headers={"X-API-Key": API_KEY, "X-Agent-ID": "alice"},
                )
                session = made.json()["session_id"]
                secrets.append((session, SESSION))
                recorder.take()
                calls = [
                    (
                        name,
                        arguments | ({"session_id": session} if "session_id" in arguments else {}),
                    )
                    for name, arguments in CALLED
                ]
                async with serve(ScriptedModel(calls).app) as model_url:
                    target = Target(
                        f"{url}/mcp", model_url, API_KEY, session, folder, home, project, node
                    )
                    async for printed in use(client, target):
                        print(printed, flush=True)
                requests = recorder.take()
    if requests:
        lines = "".join(f"{request.to_line()}\n" for request in requests)
        (CORPUS / f"{client.name}.jsonl").write_text(lines, encoding="utf-8")
    print(f"{client.name}: {len(requests)} requests\n", flush=True)
    return len(requests)


def main(names: list[str]) -> int:
    known = {client.name: client for client in CLIENTS}
    unknown = set(names) - known.keys()
    if unknown:
        print(f"No such client: {', '.join(unknown)}. There are: {', '.join(known)}")
        return 2
    node = find_node() or install_node()
    counts = [asyncio.run(record(known[name], node)) for name in names or known]
    return 0 if all(counts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
