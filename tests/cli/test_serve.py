"""`serve` over HTTP."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import shared_context_server
from shared_context_server.settings import read_secrets
from tests.cli.conftest import PATIENCE_S, Run, Serve, ServerProcess

PACKAGE = Path(shared_context_server.__file__).parent


def list_words(command: str, program: str, env: dict[str, str]) -> list[str]:
    """The arguments that `program` gets when the command is pasted into a shell."""
    script = f"{program}() {{ printf '%s\\n' \"$@\"; }}\n{command}\n"
    answer = subprocess.run(
        ["bash", "-euc", script], env=env, capture_output=True, text=True, check=True
    )
    return answer.stdout.splitlines()


def read_banner(server: ServerProcess) -> tuple[str, str]:
    """The printed commands: direct, through mcp-proxy."""
    direct = server.wait_for(r"^  (claude mcp add --transport http .*)$")[1]
    proxied = server.wait_for(r"^  (claude mcp add .* mcp-proxy .*)$")[1]
    return direct, proxied


def call(url: str, tool: str, headers: dict[str, str], **arguments: object) -> httpx.Response:
    return httpx.post(f"{url}/mcp/tool/{tool}", headers=headers, json=arguments)


def test_the_first_start_generates_private_keys(serve: Serve) -> None:
    with serve() as server:
        secrets_file = server.data_dir / "secrets.env"
        assert stat.S_IMODE(secrets_file.stat().st_mode) == 0o600
        assert set(server.secrets) == {"API_KEY", "ADMIN_API_KEY", "JWT_SECRET_KEY"}
        read_banner(server)
        assert server.stop() == 0
    assert f"generated in {secrets_file}" in server.stderr
    for secret in server.secrets.values():
        assert secret not in server.stderr


def test_the_next_start_uses_the_keys_that_are_there(serve: Serve) -> None:
    with serve() as first:
        first.stop()
    before = first.secrets
    with serve() as second:
        second.stop()
    assert second.secrets == before
    assert "generated" not in second.stderr


@pytest.mark.parametrize("directory", ["data", "a 'quoted' $HOME \"place\""])
def test_the_printed_commands_work_when_pasted(
    serve: Serve, env: dict[str, str], tmp_path: Path, directory: str
) -> None:
    with serve("--data-dir", str(tmp_path / directory)) as server:
        direct, proxied = read_banner(server)
        words = list_words(direct, "claude", env)
        assert words[:5] == ["mcp", "add", "--transport", "http", "shared-context"]
        assert words[5] == f"{server.url}/mcp"
        headers = dict(word.split(": ", 1) for word in words if ": " in word)
        answer = call(server.url, "create_session", headers, purpose="pasted")
        assert answer.json()["created_by"] == "claude-code"

        words = list_words(proxied, "claude", env)
        assert words[:6] == ["mcp", "add", "shared-context", "--", "mcp-proxy", "--transport"]
        assert words[6] == "streamablehttp"
        given = {words[i + 1]: words[i + 2] for i, w in enumerate(words) if w == "--headers"}
        assert given == headers
        assert words[-1] == f"{server.url}/mcp"


@pytest.mark.parametrize(
    "options, is_executed", [([], False), (["--data-dir", "a 'quoted' place"], True)]
)
def test_the_printed_commands_for_other_clients_and_the_demo_find_this_server_when_pasted(
    serve: Serve, env: dict[str, str], tmp_path: Path, options: list[str], is_executed: bool
) -> None:
    with serve(*options, is_executed=is_executed) as server:
        printed = server.wait_for(r"^Other clients: (.*)$")[1]
        command = re.sub(r"client-config [a-z|-]+", "client-config env", printed)
        unset = {"DATA_DIR", "HTTP_PORT"}
        elsewhere = {name: value for name, value in env.items() if name not in unset}

        def paste(command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["bash", "-c", command],
                check=False,
                env=elsewhere,
                cwd="/",
                capture_output=True,
                text=True,
            )

        answer = paste(command)
        assert answer.stderr == ""
        if options:  # without them it would take a server that this user runs
            demo = server.wait_for(r"^Agents at work, without a model: (.*)$")[1]
            shown = paste(f"{demo} --duration 1 --speed 50")
            assert f"{server.url}/ui" in shown.stdout, shown.stderr
        data_dir = tmp_path / options[1] if options else server.data_dir
        key = read_secrets(data_dir / "secrets.env")["API_KEY"]
        assert f"export SCS_URL={server.url}\n" in answer.stdout
        assert f"export SCS_API_KEY={key}\n" in answer.stdout


def test_the_printed_command_reads_a_key_that_the_environment_holds(
    serve: Serve, env: dict[str, str]
) -> None:
    key = "a-key-from-the-environment"
    with serve(API_KEY=key) as server:
        direct, _ = read_banner(server)
        words = list_words(direct, "claude", env | {"API_KEY": key})
    assert f"X-API-Key: {key}" in words
    assert key not in server.stderr


def test_the_printed_command_reads_a_key_that_dotenv_holds(
    serve: Serve, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("API_KEY=a-key-from-dotenv-0123\n")
    with serve() as server:
        direct, _ = read_banner(server)
        assert "X-API-Key: a-key-from-dotenv-0123" in list_words(direct, "claude", env)


def test_without_authentication_the_printed_command_has_no_key(
    serve: Serve, env: dict[str, str]
) -> None:
    with serve(AUTH_ENABLED="false") as server:
        direct, _ = read_banner(server)
        assert [w for w in list_words(direct, "claude", env) if ": " in w] == [
            "X-Agent-ID: claude-code"
        ]


@pytest.mark.parametrize(
    "variables, named",
    [
        ({"DATABASE_URL": "oracle://there"}, "DATABASE_URL"),
        ({"API_KEY": "short"}, "API_KEY"),
        ({"HTTP_PORT": "99999"}, "HTTP_PORT"),
        ({"RATE_LIMIT": "often"}, "RATE_LIMIT"),
        ({"RATE_LIMIT": "1/second;9/minute"}, "RATE_LIMIT"),
        ({"HTTP_HOST": "no such host"}, "HTTP_HOST"),
        ({"HTTP_HOST": "192.0.2.1"}, "192.0.2.1"),  # TEST-NET-1 of RFC 5737: nobody's address
        ({"ENV_FILE": "/no/such/file"}, "ENV_FILE"),
        ({"AUTH_ENABLED": "false", "HTTP_HOST": "0.0.0.0"}, "AUTH_DISABLED_OFF_LOOPBACK"),
        ({"DATABASE_URL": "sqlite:///:memory:", "WORKERS": "2"}, "WORKERS=1"),
        ({"MCP_SESSION_IDENTITY": "true"}, "MCP_SESSIONS=stateful"),
        (
            {
                "MCP_SESSION_IDENTITY": "true",
                "MCP_SESSIONS": "stateful",
                "HTTP_HOST": "0.0.0.0",
            },
            "MCP_SESSION_IDENTITY",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_served(
    serve: Serve, variables: dict[str, str], named: str
) -> None:
    with serve(is_ready=False, **variables) as server:
        assert server.process.wait(PATIENCE_S) == 2
    assert named in server.stderr.splitlines()[-1]
    assert "Traceback" not in server.stderr


def test_a_file_that_is_no_database_is_refused(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"this is not a database" * 100)
    url = f"sqlite:///{tmp_path / 'broken.db'}"
    with serve("--database-url", url, is_ready=False) as server:
        assert server.process.wait(PATIENCE_S) == 2
    assert "broken.db" in server.stderr
    assert "Traceback" not in server.stderr


def test_a_port_in_use_is_said_so(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with serve("--port", port, is_ready=False) as server:
            assert server.process.wait(PATIENCE_S) == 2
    assert f"Port {port} of 127.0.0.1 is in use" in server.stderr


def test_other_addresses_without_authentication_when_it_is_meant(serve: Serve) -> None:
    with serve(
        HTTP_HOST="0.0.0.0", AUTH_ENABLED="false", AUTH_DISABLED_OFF_LOOPBACK="true"
    ) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert call(server.url, "create_session", {}, purpose="open").status_code == 200


@pytest.mark.usefixtures("hangup_counts")
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_server_with_success(serve: Serve, sig: signal.Signals) -> None:
    is_executed = sig == signal.SIGHUP  # one of them also as the interpreter ends
    with serve(is_executed=is_executed) as server, httpx.Client(base_url=server.url) as kept_alive:
        assert kept_alive.get("/ready").status_code == 200
        assert server.stop(sig) == 0
    assert "Traceback" not in server.stderr


@pytest.mark.usefixtures("hangup_counts")
def test_under_nohup_a_closed_terminal_does_not_end_the_server(serve: Serve) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; the process inherits it
    with serve(is_executed=True) as server:
        server.process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{server.url}/ready").status_code == 200
        assert server.stop() == 0


def test_nothing_goes_to_stdout_and_nothing_but_the_log_to_stderr(serve: Serve) -> None:
    with serve(is_executed=True, LOG_FORMAT="json") as server:
        call(server.url, "list_sessions", {"X-API-Key": server.secrets["API_KEY"]})
        assert server.stop() == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""
    for line in server.stderr.splitlines():
        json.loads(line)


def test_answers_do_not_tell_what_serves_them(serve: Serve) -> None:
    with serve() as server:
        assert "server" not in httpx.get(f"{server.url}/health").headers


def test_json_logs_are_json_and_hold_no_credential(serve: Serve) -> None:
    with serve(LOG_FORMAT="json", LOG_LEVEL="DEBUG") as server:
        key = server.secrets["API_KEY"]
        with_key = {"X-API-Key": key}
        issued = call(server.url, "authenticate_agent", with_key, agent_id="alice").json()
        bearer = {"Authorization": f"Bearer {issued['token']}"}
        assert call(server.url, "list_sessions", bearer).status_code == 200
        handle = issued["agent_handle"]
        assert call(server.url, "list_sessions", with_key, auth_token=handle).is_success
        wrong_key = "scs_wrong-0123456789abcdefghij"
        assert call(server.url, "list_sessions", {"X-API-Key": wrong_key}).status_code == 401
        forged = {"Authorization": f"Bearer {issued['token']}x"}
        assert call(server.url, "list_sessions", forged).status_code == 401
        assert call(server.url, "get_session", bearer, session_id="none").status_code == 404
        assert call(server.url, "get_session", bearer, api_key=key).status_code == 400
        httpx.get(f"{server.url}/metrics?api_key={key}")
        assert server.stop() == 0
    events = [json.loads(line) for line in server.stderr.splitlines()]
    serving = next(event for event in events if event["event"] == "serving")
    assert serving["mcp"] == f"{server.url}/mcp"
    assert serving["data"] == str(server.data_dir)
    assert any(event["event"] == "request" for event in events)
    for credential in (*server.secrets.values(), issued["token"], handle, wrong_key):
        assert credential not in server.stderr


def test_serve_works_from_any_directory(serve: Serve, tmp_path: Path) -> None:
    with serve(is_ready=True) as server:
        assert Path(f"/proc/{server.process.pid}/cwd").resolve() == tmp_path
        assert httpx.get(f"{server.url}/docs").status_code == 200


def test_reload_serves_the_source_as_it_is_now(
    serve: Serve, tmp_path: Path, env: dict[str, str]
) -> None:
    source = tmp_path / "reloaded"  # counted as src, see [tool.coverage.paths]
    shutil.copytree(PACKAGE, source / PACKAGE.name)
    with serve("--reload", PYTHONPATH=str(source)) as server:
        server.wait_for("Application startup complete")
        init = source / PACKAGE.name / "__init__.py"
        init.write_text(init.read_text().replace(shared_context_server.__version__, "99.0.0"))
        server.wait_for("Application startup complete")
        info = httpx.get(f"{server.url}/openapi.json", timeout=PATIENCE_S).json()["info"]
        assert info["version"] == "99.0.0"
        assert server.stop() == 0
    assert "Traceback" not in server.stderr


def test_a_second_server_may_use_the_same_data_dir(serve: Serve, scs: Run) -> None:
    with serve() as first, serve() as second:
        headers = {"X-API-Key": first.secrets["API_KEY"], "X-Agent-ID": "alice"}
        made = call(first.url, "create_session", headers, purpose="shared").json()
        found = call(second.url, "get_session", headers, session_id=made["session_id"]).json()
    assert found["session"]["purpose"] == "shared"


def test_the_module_and_the_script_are_the_same_program() -> None:
    script = Path(sys.executable).with_name("shared-context-server")
    if not script.exists():
        pytest.skip("the project is not installed")
    answer = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == shared_context_server.__version__
