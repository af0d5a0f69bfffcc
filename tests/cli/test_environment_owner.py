"""Commands in somebody's project, whose .env and variables belong to the project."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, PATIENCE_S, Run

STDIO = ["serve", "--transport", "stdio"]


@pytest.fixture
def project(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a project with settings of its own, in an .env too, and an app's database."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE users (id INTEGER)")
    theirs = {
        "API_KEY": "the-key-of-the-project",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'app.db'}",
        "JWT_SECRET_KEY": "short",
        "LOG_FORMAT": "pretty",
        "LOG_LEVEL": "verbose",
        "WORKERS": "many",
        "FASTMCP_LOG_LEVEL": "verbose",
    }
    text = "".join(f"{name}={value}\n" for name, value in theirs.items())
    (tmp_path / ".env").write_text(text)
    return env | theirs | {"SCS_DATA_DIR": env["DATA_DIR"], "DATA_DIR": "/of/the/project"}


def execute(
    arguments: list[str], env: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Not forked: what libraries read when they are imported matters, too."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_a_client_s_server_takes_nothing_from_the_project(
    project: dict[str, str], tmp_path: Path, encoding: str
) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes((dotenv.read_text() + "NAME=café\n").encode(encoding))
    before = (tmp_path / "app.db").read_bytes()
    answer = execute(STDIO, project, tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert (tmp_path / "app.db").read_bytes() == before
    assert (tmp_path / "data" / "shared_context.db").exists()


def test_client_config_prints_our_key_and_not_the_project_s(
    project: dict[str, str], tmp_path: Path
) -> None:
    answer = execute(["client-config", "env"], project, tmp_path)
    assert answer.returncode == 0
    assert "SCS_API_KEY=scs_" in answer.stdout
    assert project["API_KEY"] not in answer.stdout


def test_a_prefixed_setting_reaches_a_client_s_server(
    project: dict[str, str], tmp_path: Path
) -> None:
    answer = execute(STDIO, project | {"SCS_LOG_LEVEL": "verbose"}, tmp_path)
    assert answer.returncode == 2
    assert "SCS_LOG_LEVEL in the environment" in answer.stderr


@pytest.mark.parametrize("command", ["serve", "status", "keys list", "token --agent-id a", "clock"])
def test_a_dotenv_that_is_not_utf_8_ends_a_command_that_reads_it_with_one_line(
    scs: Run, tmp_path: Path, command: str
) -> None:
    (tmp_path / ".env").write_bytes("NAME=café\n".encode("latin-1"))
    answer = scs(*command.split())
    assert answer.returncode == 2
    assert answer.stderr == (
        f"shared-context-server: {tmp_path / '.env'} is not UTF-8 text. Save it as UTF-8.\n"
    )


def test_a_command_finds_the_store_of_the_server_beside_the_same_dotenv(
    scs: Run, env: dict[str, str], tmp_path: Path
) -> None:
    del env["DATA_DIR"]
    (tmp_path / ".env").write_text(f"DATA_DIR={tmp_path / 'theirs'}\n")
    assert scs("keys", "create", "--agent-id", "ci").returncode == 0
    assert (tmp_path / "theirs" / "shared_context.db").exists()


def test_a_misspelt_setting_is_told_and_the_command_runs(scs: Run) -> None:
    answer = scs("migrate", "--check", SCS_LOG_LEVLE="DEBUG", MCP_TRANSPORT="stdio")
    assert answer.returncode == 1
    assert "Did you mean SCS_LOG_LEVEL?" in answer.stderr
    assert "Use the option --transport of serve." in answer.stderr


def test_an_env_file_may_be_a_pipe(env: dict[str, str], tmp_path: Path) -> None:
    """As in `SCS_ENV_FILE=<(decrypt settings)`: it can be read once."""
    script = f'SCS_ENV_FILE=<(echo "LOG_LEVEL=loud") {" ".join(COMMAND)} client-config env'
    answer = subprocess.run(
        ["bash", "-c", script],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert answer.returncode == 2
    assert "LOG_LEVEL in /dev/fd/" in answer.stderr
    script = script.replace("loud", "INFO")
    subprocess.run(["bash", "-c", script], env=env, cwd=tmp_path, timeout=PATIENCE_S, check=True)


def test_the_module_is_the_command(env: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shared_context_server", "--help"]
    answer = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "client-config" in answer.stdout


def test_the_strongest_source_of_a_setting_wins(scs: Run, tmp_path: Path) -> None:
    """Each step takes the strongest source away; the command says by what it makes which counted."""

    def url(name: str) -> str:
        return f"sqlite:///{tmp_path / name}.db"

    named, dotenv = tmp_path / "config" / "server.env", tmp_path / ".env"
    secrets = tmp_path / "data" / "secrets.env"
    for path, name in ((named, "named"), (dotenv, "dotenv"), (secrets, "secrets")):
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.write_text(f"DATABASE_URL={url(name)}\n")
        path.chmod(0o600)
    arguments = ["--database-url", url("flag")]
    variables = {
        "SCS_DATABASE_URL": url("prefixed"),
        "DATABASE_URL": url("plain"),
        "SCS_ENV_FILE": "config/server.env",
    }

    def migrate() -> set[str]:
        before = set(tmp_path.rglob("*.db"))
        assert scs("migrate", *arguments, **variables).returncode == 0
        return {path.stem for path in set(tmp_path.rglob("*.db")) - before}

    assert migrate() == {"flag"}
    arguments.clear()
    assert migrate() == {"prefixed"}
    del variables["SCS_DATABASE_URL"]
    assert migrate() == {"plain"}
    del variables["DATABASE_URL"]
    assert migrate() == {"named"}
    del variables["SCS_ENV_FILE"]
    assert migrate() == {"dotenv"}
    dotenv.unlink()
    assert migrate() == {"secrets"}
    secrets.unlink()
    assert migrate() == {"shared_context"}  # the default, in the data dir
