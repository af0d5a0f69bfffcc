import subprocess
import sys
from pathlib import Path

import pytest

from shared_context_server.clock import OptionError, SegmentLayoutError
from shared_context_server.clock.layout import RECORD_SIZE
from shared_context_server.clock.segment import (
    attach_segment,
    check_prefix,
    create_segment,
    is_current,
    unlink_segment,
)


def test_what_is_written_by_one_is_read_by_another(prefix):
    written = create_segment(f"{prefix}s", RECORD_SIZE)
    read = attach_segment(f"{prefix}s", RECORD_SIZE)
    written.view[:5] = b"hello"
    assert bytes(read.view[:5]) == b"hello"
    assert len(read.view) == RECORD_SIZE
    assert written.was_created


def test_a_reader_cannot_write(prefix):
    create_segment(f"{prefix}s", RECORD_SIZE)
    read = attach_segment(f"{prefix}s", RECORD_SIZE)
    with pytest.raises(TypeError):
        read.view[0] = 1


def test_there_is_nothing_to_attach_to_before_it_is_created(prefix):
    with pytest.raises(FileNotFoundError):
        attach_segment(f"{prefix}s", RECORD_SIZE)


def test_a_segment_in_the_making_is_not_there_yet(prefix):
    (Path("/dev/shm") / f"{prefix}s").touch()
    with pytest.raises(FileNotFoundError):
        attach_segment(f"{prefix}s", RECORD_SIZE)


def test_creating_takes_over_what_a_dead_writer_left(prefix):
    create_segment(f"{prefix}s", RECORD_SIZE).view[:4] = b"left"
    taken = create_segment(f"{prefix}s", RECORD_SIZE)
    assert not taken.was_created
    assert bytes(taken.view[:4]) == b"left"


def test_unlinking_takes_the_name_and_leaves_the_readers(prefix, shared_files):
    written = create_segment(f"{prefix}s", RECORD_SIZE)
    read = attach_segment(f"{prefix}s", RECORD_SIZE)
    unlink_segment(written)
    assert shared_files() == []
    written.view[:3] = b"yes"
    assert bytes(read.view[:3]) == b"yes"


def test_a_replaced_segment_is_not_current_and_its_owner_does_not_unlink_the_new_one(
    prefix, shared_files
):
    first = create_segment(f"{prefix}s", RECORD_SIZE)
    assert is_current(first, if_unknown=False)
    unlink_segment(first)
    assert not is_current(first, if_unknown=False)
    second = create_segment(f"{prefix}s", RECORD_SIZE)
    assert is_current(second, if_unknown=False)
    assert not is_current(first, if_unknown=False)
    unlink_segment(first)
    assert shared_files() == ["s"]


def test_a_segment_of_fewer_bytes_is_refused_by_readers_and_made_whole_by_the_writer(prefix):
    path = Path("/dev/shm") / f"{prefix}s"
    path.write_bytes(b"short")
    with pytest.raises(SegmentLayoutError, match="5 bytes"):
        attach_segment(f"{prefix}s", RECORD_SIZE)
    assert len(create_segment(f"{prefix}s", RECORD_SIZE).view) == RECORD_SIZE


@pytest.mark.parametrize("bad", ["a/b", "../x", "a b", "ä", "\0", "x" * 201])
def test_a_prefix_that_could_not_name_a_segment_is_refused(bad):
    with pytest.raises(OptionError, match="prefix"):
        check_prefix(bad)


def test_a_process_that_attached_leaves_the_segment_when_it_exits(prefix, shared_files):
    create_segment(f"{prefix}s", RECORD_SIZE)
    code = f"from shared_context_server.clock.segment import *; attach_segment('{prefix}s', 64)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stderr == ""
    assert shared_files() == ["s"]
