"""End a program that waits when nobody reads any more what it prints."""

from __future__ import annotations

import os
import select
import signal
import threading

STDOUT = 1
STDERR = 2


def end_without_reader(*descriptors: int) -> None:
    """Send this process SIGTERM when the reader of one of these pipes or sockets is gone.

    Without it, a program whose client was killed would wait on, and take messages that nobody sees.
    Files and terminals have no reader that could go.
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, 0)  # errors and hang-ups are reported in any case

    def wait() -> None:
        poll.poll()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="readers", daemon=True).start()
