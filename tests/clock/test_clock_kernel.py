import math
import shutil
import subprocess
import sys

import pytest

from shared_context_server.clock import ClockReader
from shared_context_server.clock.timesync import kernel
from shared_context_server.clock.timesync.kernel import (
    KernelState,
    KernelTime,
    open_kernel_clock,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="adjtimex is Linux's")


def test_a_synchronized_kernel_gives_its_bound():
    tick = KernelTime(lambda: KernelState(True, 0.004)).tick()
    assert tick.is_synchronized
    assert tick.error_bound_s == pytest.approx(0.004, abs=0.001)
    assert tick.last_sync_s == tick.time_s
    assert tick.offset_s == 0


def test_a_kernel_that_lost_its_servers_gives_no_bound(wait_until):
    states = [KernelState(True, 0.004), KernelState(False, 16.0)]
    keeper = KernelTime(lambda: states.pop(0) if len(states) > 1 else states[0])
    first = keeper.tick()
    assert first.is_synchronized
    wait_until(lambda: not keeper.tick().is_synchronized)
    last = keeper.tick()
    assert last.error_bound_s == math.inf
    assert last.last_sync_s == first.last_sync_s


def test_the_bound_grows_between_questions_to_the_kernel():
    keeper = KernelTime(lambda: KernelState(True, 0.004))
    first = keeper.tick()
    for _ in range(1000):
        last = keeper.tick()
    passed_s = (last.monotonic_ns - first.monotonic_ns) / 1e9
    assert last.error_bound_s >= 0.004 + passed_s * kernel.KERNEL_GROWTH


@linux_only
def test_the_kernels_answer_is_read_as_its_own_header_lays_it_out(tmp_path):
    """Against a C program that uses <sys/timex.h>: the structure here is written by hand."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source = tmp_path / "ask.c"
    source.write_text(
        "#include <stdio.h>\n#include <sys/timex.h>\n"
        "int main(void) { struct timex t = {0}; int code = adjtimex(&t);\n"
        'printf("%d %ld %zu", code != TIME_ERROR && !(t.status & STA_UNSYNC), t.maxerror,'
        " sizeof t); }\n"
    )
    program = tmp_path / "ask"
    subprocess.run([compiler, "-o", program, source], check=True, timeout=60)
    before = open_kernel_clock()()
    words = subprocess.run([program], capture_output=True, check=True, timeout=60).stdout.split()
    after = open_kernel_clock()()
    assert before.is_synchronized == bool(int(words[0]))
    assert before.max_error_s <= int(words[1]) / 1e6 <= after.max_error_s
    assert kernel.ctypes.sizeof(kernel._Timex) >= int(words[2])


@linux_only
def test_a_daemon_passes_the_kernels_word_on(prefix, start_daemon):
    start_daemon("--source", "none", "--ntp", "kernel")
    state = open_kernel_clock()()
    with ClockReader(prefix) as reader:
        reading = reader.now()
    assert reading.synchronized == state.is_synchronized
    assert (reading.earliest is None) == (not state.is_synchronized)
