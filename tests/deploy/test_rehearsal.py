"""What `make rehearse` reads of the files, as far as it can be checked without root."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values

from tests.cli.conftest import PATIENCE_S
from tests.clock.daemons import own_prefix, run_daemon_process
from tests.deploy import manifests
from tests.deploy.dockerfile import read_command, read_pairs, read_stages
from tests.deploy.rehearsal.base import CannotRehearseError, find_suite
from tests.deploy.rehearsal.compose import make_project, to_seconds
from tests.deploy.rehearsal.drills import read_restore_command
from tests.deploy.rehearsal.image import INSTRUCTIONS, list_context
from tests.deploy.rehearsal.load import Load, Record, RestCaller, Sent, Stream, Waiter
from tests.deploy.rehearsal.pods import Probe, to_bytes
from tests.deploy.rehearsal.rollout import judge
from tests.deploy.rehearsal.selfcheck import FAULTS, Fault

DOCKERFILE = """\
ARG BASE=python:3.13-slim-bookworm
FROM ${BASE} AS builder
ENV A=1 \\
    PATH=/opt/bin:$PATH
# Said in between.
RUN echo one \\
    && echo two
FROM ${BASE}
COPY --from=builder /a /b
CMD ["serve", "--port", "1"]
"""


def test_a_dockerfile_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    builder, final = read_stages(tmp_path / "Dockerfile")
    assert (builder.name, final.name) == ("builder", "")
    assert builder.image == final.image == "python:3.13-slim-bookworm"
    assert read_pairs(builder.value("ENV"), {"PATH": "/bin"}) == {"A": "1", "PATH": "/opt/bin:/bin"}
    assert builder.value("RUN").split() == ["echo", "one", "&&", "echo", "two"]
    assert read_command(final.value("CMD")) == ["serve", "--port", "1"]


def test_every_instruction_of_the_dockerfile_can_be_executed() -> None:
    used = {each.name for stage in read_stages() for each in stage.instructions}
    assert used <= INSTRUCTIONS


def test_the_build_s_context_has_what_is_copied_and_no_secrets(tmp_path: Path) -> None:
    for name in (".env", "src/.env", "src/secrets.env", "src/kept.py", "tests/left_out.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy(manifests.ROOT / ".dockerignore", tmp_path)
    let_in = {name for name in list_context(tmp_path) if (tmp_path / name).is_file()}
    assert let_in - {".dockerignore"} == {"src/kept.py"}  # that one always goes to the engine


def test_the_base_is_the_debian_release_with_the_image_s_python() -> None:
    assert find_suite(read_stages()[-1].image) == "trixie"
    with pytest.raises(CannotRehearseError, match="alpine"):
        find_suite("python:3.13-alpine")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the secrets")
def test_the_page_s_commands_make_the_secrets_of_compose(tmp_path: Path) -> None:
    make_project(tmp_path / "project")
    written = dotenv_values(tmp_path / "project/.env")
    secrets = [name for name, value in manifests.compose_example().items() if value == ""]
    for name in ("API_KEY", "ADMIN_API_KEY", "JWT_SECRET_KEY", "POSTGRES_PASSWORD"):
        assert name in secrets
        assert re.fullmatch("[0-9a-f]{64}", written[name] or ""), name
    assert (tmp_path / "project/.env").stat().st_mode & 0o777 == 0o600


def test_the_page_has_the_command_that_restores_a_backup() -> None:
    shell, script = read_restore_command()
    assert shell == "sh"
    received, restored, removed = [part.split() for part in script.split(" && ")]
    path = received[-1].removeprefix(">")
    assert restored == ["shared-context-server", "restore", path]
    assert removed == ["rm", path]
    assert path.startswith(f"{manifests.image_environment()['DATA_DIR']}/")


def test_the_health_check_of_the_clock_succeeds_while_the_clock_runs() -> None:
    program, *arguments = manifests.services()["clock"]["healthcheck"]["test"][1:]
    assert program == "python"
    with own_prefix() as prefix:
        ours = [
            argument.replace("ClockReader()", f"ClockReader({prefix!r})") for argument in arguments
        ]
        assert ours != arguments
        command = [sys.executable, *ours]
        with run_daemon_process(prefix):
            assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == 0
        ended = subprocess.run(command, timeout=PATIENCE_S, check=False, stderr=subprocess.DEVNULL)
        assert ended.returncode != 0


@pytest.mark.parametrize(
    "kept, seen, is_broken",
    [
        ([(1, "a"), (2, "b")], [(1, "a"), (2, "b")], False),
        ([(1, "a")], [(1, "a")], True),  # an acknowledged message is lost
        ([(1, "a"), (2, "b"), (3, "b")], [(1, "a"), (2, "b"), (3, "b")], True),
        ([(1, "a"), (2, "b"), (3, "c")], [(1, "a"), (2, "b"), (3, "c")], True),  # nobody sent it
        ([(1, "a"), (2, "b")], [(1, "a")], True),  # a listener missed one
        ([(1, "a"), (2, "b")], [(1, "a"), (2, "b"), (2, "b")], True),
    ],
)
async def test_a_rollout_is_broken_if_a_message_is_not_there_and_seen_exactly_once(
    kept: list[tuple[int, str]], seen: list[tuple[int, str]], is_broken: bool
) -> None:
    record = Record({"a": Sent("s", 1, 0.0), "b": Sent("s", 2, 0.0)}, rolled=[0.0, 1.0])
    heard = [(seq, content, 0.0) for seq, content in seen]
    async with httpx.AsyncClient() as client:
        caller = RestCaller("http://127.0.0.1", {})
        listeners = [
            Stream(record, "s", "streams", heard, client=client),
            Waiter(record, "s", "REST waits", heard, caller=caller),
        ]
        load = Load(record, ["s"], [], listeners, "http://127.0.0.1", {})
        assert bool(judge("a rollout", load, {"s": kept}, 1.0).broken) is is_broken
        await caller.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_faults_of_the_self_check_fit_the_server(tmp_path: Path, fault: Fault) -> None:
    package = tmp_path / "shared_context_server"
    shutil.copytree(manifests.ROOT / "src/shared_context_server", package)
    before = (package / fault.file).read_text()
    fault.plant(tmp_path)
    planted = (package / fault.file).read_text()
    assert planted != before
    compile(planted, fault.file, "exec")


@pytest.mark.parametrize(
    "written, seconds", [("15s", 15.0), ("1m0s", 60.0), ("500ms", 0.5), ("1h30m", 5400.0)]
)
def test_durations_are_read_as_compose_writes_them(written: str, seconds: float) -> None:
    assert to_seconds(written) == seconds


def test_sizes_and_probes_of_the_pod_are_read() -> None:
    assert to_bytes("16Mi") == 16 * 2**20
    startup = Probe.read("startupProbe")
    assert (startup.path, startup.period_s * startup.failures) == ("/ready", 120)
