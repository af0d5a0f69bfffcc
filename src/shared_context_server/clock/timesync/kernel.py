"""Reads the kernel's estimate of the system clock's error: adjtimex(2) of Linux.

chronyd, ntpd or another daemon disciplines that clock and sets its maximum error. Between two
updates the kernel lets this error grow by 500 ppm. At 16 s the kernel declares the clock
unsynchronized.
"""

import ctypes
import math
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from shared_context_server.clock.errors import OptionError
from shared_context_server.clock.timesync.timekeeper import NS, Tick, read_clock_pair

STA_UNSYNC = 0x0040
TIME_ERROR = 5
KERNEL_GROWTH = 500e-6
"""How fast the kernel's maximum error grows, in seconds a second (MAXFREQ)."""
ASK_EVERY_NS = NS // 4


class _Timex(ctypes.Structure):
    """struct timex of <sys/timex.h>: the fields used here, and space for the others."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 192),
    )


class KernelState(NamedTuple):
    is_synchronized: bool
    max_error_s: float


class KernelTime:
    """The system clock with the error bound and the state from `ask_kernel`."""

    def __init__(self, ask_kernel: Callable[[], KernelState]) -> None:
        self._ask_kernel = ask_kernel
        self._state = KernelState(False, math.inf)
        self._asked_at_ns = -ASK_EVERY_NS
        self._last_sync_s = 0.0

    def start(self) -> None:
        return None

    def tick(self) -> Tick:
        realtime_ns, monotonic_ns, gap_ns = read_clock_pair()
        time_s = realtime_ns / NS
        since_ns = monotonic_ns - self._asked_at_ns
        if since_ns >= ASK_EVERY_NS:
            self._state, self._asked_at_ns, since_ns = self._ask_kernel(), monotonic_ns, 0
            if self._state.is_synchronized:
                self._last_sync_s = time_s
        if not self._state.is_synchronized:
            return Tick(time_s, monotonic_ns, self._last_sync_s, 0.0, math.inf, False)
        bound_s = self._state.max_error_s + since_ns / NS * KERNEL_GROWTH + gap_ns / NS
        return Tick(time_s, monotonic_ns, self._last_sync_s, 0.0, bound_s, True)

    def stop(self) -> None:
        return None


def open_kernel_clock() -> Callable[[], KernelState]:
    """A function that reads this kernel's state. Raises OptionError where there is no adjtimex."""
    if sys.platform != "linux":
        raise OptionError("--ntp kernel", f"needs adjtimex(2), which {sys.platform} does not have")
    adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex

    def ask() -> KernelState:
        timex = _Timex()
        code = adjtimex(ctypes.byref(timex))
        if code < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        is_synchronized = code != TIME_ERROR and not timex.status & STA_UNSYNC
        return KernelState(is_synchronized, timex.maxerror / 1e6)

    ask()
    return ask
