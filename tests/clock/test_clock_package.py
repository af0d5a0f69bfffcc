"""What the package promises as a whole: its exports, its independence, its documentation."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shared_context_server.clock as clock
from shared_context_server.clock.__main__ import build_parser
from shared_context_server.clock.records import ClockRecord, SensorRecord
from tests.clock.daemons import unmeasured

PACKAGE = Path(clock.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "clock.md"


def test_the_public_names():
    assert clock.__all__ == [
        "ClockError",
        "ClockFlag",
        "ClockNotRunningError",
        "ClockReader",
        "ClockReading",
        "ClockRecord",
        "DaemonAlreadyRunningError",
        "OptionError",
        "ReaderClosedError",
        "SegmentAccessError",
        "SegmentClosedError",
        "SegmentInUseError",
        "SegmentLayout",
        "SegmentLayoutError",
        "SegmentNotFoundError",
        "SegmentReader",
        "SegmentReading",
        "SegmentWriter",
        "SensorFlag",
        "SensorReader",
        "SensorReading",
        "SensorRecord",
        "UnstableRecordError",
        "WriterAlreadyRunningError",
    ]
    assert clock.ClockReading._fields == (
        "time",
        "earliest",
        "latest",
        "age_s",
        "stale",
        "synchronized",
        "sequence",
    )


def test_readers_import_the_standard_library_and_little_of_it():
    code = "import sys, shared_context_server.clock; print(*sys.modules, sep='\\n')"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=unmeasured(),
    )
    modules = set(run.stdout.split())
    assert not {"psutil", "ntplib", "multiprocessing", "subprocess", "logging"} & modules
    own = {name for name in modules if name.startswith("shared_context_server.")}
    assert all(name.startswith("shared_context_server.clock") for name in own)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_imports_the_rest_of_the_server(path):
    for node in ast.walk(ast.parse(path.read_text())):
        imported = []
        if isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        elif isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        for name in imported:
            assert not name.startswith("shared_context_server") or name.startswith(clock.__name__)


def test_every_option_is_documented():
    text = DOCS.read_text()
    for action in build_parser()._actions:
        for option in action.option_strings:
            assert option in text or option in {"-h", "--help"}


@pytest.mark.parametrize("record_type", [ClockRecord, SensorRecord])
def test_every_field_is_documented(record_type):
    text = DOCS.read_text()
    for name, _ in record_type._fields_:
        assert f"`{name}`" in text


def test_the_struct_in_the_documentation_compiles_and_reads(tmp_path, prefix, start_daemon):
    """The C reader that docs/clock.md shows, against a living daemon."""
    start_daemon("--source", "simulated")
    text = DOCS.read_text()
    source = tmp_path / "read.c"
    source.write_text(text.split("```c\n", 1)[1].split("```", 1)[0])
    try:
        subprocess.run(["cc", "-o", tmp_path / "read", source, "-lrt"], check=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs a C compiler")
    run = subprocess.run(
        [tmp_path / "read", prefix], capture_output=True, text=True, timeout=30, check=True
    )
    with clock.ClockReader(prefix) as reader:
        assert abs(float(run.stdout.split()[0]) - reader.now().time) < 30


def test_the_daemon_imports_none_of_what_takes_megabytes(prefix):
    """With its defaults, after its first ticks and readings. The whole process is to take 12 MB."""
    code = (
        "import sys, threading\n"
        "from shared_context_server.clock import process\n"
        "from shared_context_server.clock.options import DaemonOptions\n"
        "words = process.make_command(DaemonOptions(prefix=sys.argv[1]), debug=False,"
        " until_eof=True)[3:]\n"
        "status = process.main(words)\n"
        "print(status, *sys.modules, sep='\\n')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, prefix],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=unmeasured(),
    )
    ready, status, *modules = run.stdout.splitlines()
    assert (ready[:6], status) == ("ready:", "0")
    assert "took over" not in run.stderr
    assert "INFO clock daemon started" in run.stderr
    heavy = {"argparse", "ctypes", "dataclasses", "inspect", "json", "logging", "ntplib", "pathlib"}
    heavy |= {"platform", "psutil", "re", "socket", "subprocess", "tempfile", "typing"}
    assert heavy.isdisjoint(modules)


def measure_private_mb(command):
    with subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=unmeasured(),
    ) as process:
        assert process.stdout.readline()
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        process.communicate("")
    return int(text.split("Private_Dirty:")[1].split()[0]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_daemon_takes_little_more_than_a_bare_interpreter(prefix):
    """What its command becomes: a process without the parser of the options. 12 MB in all with the
    interpreter of which a bare process takes 9."""
    daemon = ["-m", "shared_context_server.clock", "--prefix", prefix, "--until-eof"]
    bare = ["-c", "import sys; print('ready', flush=True); sys.stdin.read()"]
    assert measure_private_mb(daemon) < measure_private_mb(bare) + 4
