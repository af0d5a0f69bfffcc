"""The signals that ask a process to end."""

from __future__ import annotations

import signal


def find_ending_signals() -> list[signal.Signals]:
    """SIGINT, SIGTERM, and where there are such: SIGHUP, which a closed terminal sends, and
    SIGBREAK. SIGHUP is left out where it is ignored, as it is under nohup."""
    found = [signal.SIGINT, signal.SIGTERM]
    for name in ("SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            found.append(number)
    return found
