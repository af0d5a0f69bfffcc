"""The code blocks about segments of one's own, in Python and in C."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.clock import SegmentReader, SegmentWriter, WriterAlreadyRunningError
from tests.cli.c_programs import compile_c, find_c_compiler
from tests.cli.code_blocks import marked
from tests.clock.daemons import own_prefix

OWN_PARTS = ("own-layout", "own-writer", "own-reader", "own-tool")


@pytest.fixture
def own_segment() -> Iterator[tuple[str, str]]:
    """The page's blocks in Python and in C, with names of the test's own, as one program each."""
    with own_prefix() as prefix:
        layout, writer, reader, tool = (marked("docs/clock.md", part) for part in OWN_PARTS)
        use = (
            "limiter = RateLimiter(2)\n"
            "assert [limiter.allow() for _ in range(3)] == [True, True, False]\n"
        )
        call = "print(get_limits())\nimport sys; sys.stdout.flush(); sys.stdin.read()\n"
        program = f"{layout}\n{writer}\n{use}\n{reader}\n{tool}\n{call}"
        in_c = marked("docs/clock.md", "own-c")
        yield tuple(  # type: ignore[misc]
            text.replace("rate_limiter", f"{prefix}rate_limiter") for text in (program, in_c)
        )


def test_a_segment_of_ones_own_works_as_written_in_python_and_c(
    own_segment: tuple[str, str], tmp_path: Path
) -> None:
    program, in_c = own_segment
    compiler = find_c_compiler()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        values, writer, tool = (process.stdout.readline().split() for _ in range(3))
        assert (values[:2], values[4], writer) == (["2", "1"], "True", [str(process.pid), "True"])
        assert tool[:2] == ["{'allowed':", "2,"]
        if compiler:
            reader = compile_c(compiler, in_c, tmp_path, "c11")
            read = subprocess.run([reader], capture_output=True, text=True, check=True)
            assert read.stdout.split()[:3] == ["2", "1", str(process.pid)]
            refused = subprocess.run([reader, "write", "7"], capture_output=True, check=False)
            assert refused.returncode == 1
        process.communicate("")
    if compiler is None:
        pytest.skip("no C compiler here: the struct alone was compared")


def test_a_segment_that_a_program_in_c_writes_is_read_in_python(
    own_segment: tuple[str, str], tmp_path: Path
) -> None:
    program, in_c = own_segment
    compiler = find_c_compiler()
    if compiler is None:
        pytest.skip("no C compiler here")
    names: dict[str, Any] = {}
    exec(program.split("\n\n\n")[0].split("from time")[0], names)
    writer = compile_c(compiler, in_c, tmp_path, "c17")
    with (
        subprocess.Popen(
            [writer, "write", "7"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
        SegmentReader(names["LIMITS"]) as reader,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        reading = reader.read()
        assert (reading.values.allowed, reading.values.limit) == (7, 10)
        assert (reading.writer_pid, reader.is_writer_alive()) == (process.pid, True)
        with pytest.raises(WriterAlreadyRunningError, match=f"pid {process.pid}"):
            SegmentWriter(names["LIMITS"])
        process.communicate("")
    assert not (Path("/dev/shm") / names["LIMITS"].name).exists()


def test_the_struct_in_c_has_the_fields_of_the_layout() -> None:
    """Without a compiler: each field of the layout, in its order, with a type of its size."""
    names: dict[str, Any] = {}
    exec(marked("docs/clock.md", "own-layout"), names)
    layout = names["LIMITS"]
    text = marked("docs/clock.md", "own-c")
    struct_text = text.split("struct record {")[1].split("};")[0]
    declared = re.findall(r"(?:_Atomic )?(uint32_t|uint64_t|double) (\w+);", struct_text)
    codes = {"uint32_t": "I", "uint64_t": "Q", "double": "d"}
    assert [(name, codes[kind]) for kind, name in declared] == list(layout.fields.items())
    assert f"RECORD_SIZE = {layout.size} " in text
    assert f"VERSION = {layout.version}," in text


def test_a_plain_segment_is_read_as_written() -> None:
    with own_prefix() as prefix:
        path = Path("/dev/shm") / f"{prefix}other_daemon_shm"
        path.write_bytes(struct.pack("<ddII", 20.5, 40.0, 7, 1))
        path.chmod(0o600)
        text = marked("docs/clock.md", "own-plain").replace("other_daemon", f"{prefix}other_daemon")
        answer = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=True
        )
    assert answer.stdout.split() == ["20.5", "40.0", "True", "False"]
