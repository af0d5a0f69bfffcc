"""A system clock of its own for a process, which a test can set without setting the machine's."""

from __future__ import annotations

import secrets
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SHIFTED_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static int (*ask)(clockid_t, struct timespec *);
static volatile long *shift_s;
int clock_gettime(clockid_t id, struct timespec *now) {
    if (!ask) {
        shift_s = mmap(0, 8, PROT_READ, MAP_SHARED, open(getenv("SHIFT_FILE"), O_RDONLY), 0);
        ask = dlsym(RTLD_NEXT, "clock_gettime");
    }
    int code = ask(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += *shift_s;
    return code;
}
"""


class OwnClock:
    """A system clock of its own for processes that are started with `environment`.

    A small library, loaded before the C library, adds the seconds that stand in a file.
    """

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {"LD_PRELOAD": str(library), "SHIFT_FILE": str(file)}
        file.write_bytes(bytes(8))

    def set_ahead(self, seconds: int) -> None:
        with self._file.open("r+b") as file:
            file.write(struct.pack("@l", seconds))


def build_own_clock(directory: Path) -> OwnClock:
    """Skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    name = secrets.token_hex(4)
    source, library = directory / f"{name}.c", directory / f"{name}.so"
    source.write_text(SHIFTED_CLOCK)
    command = [compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return OwnClock(library, directory / name)
