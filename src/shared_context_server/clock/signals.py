"""The signals that ask a process to end."""

from __future__ import annotations

import signal


def find_ending_signals() -> list[signal.Signals]:
    """SIGINT and SIGTERM; SIGHUP (sent by a terminal that closes) and SIGBREAK where the system has
    them and does not ignore them. nohup ignores SIGHUP."""
    found = [signal.SIGINT, signal.SIGTERM]
    for name in ("SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            found.append(number)
    return found
