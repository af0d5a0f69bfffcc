"""Wait in a hook until a message mentions the agent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import suppress

from shared_context_server.remote.access import Access
from shared_context_server.remote.client_event import read_client_event
from shared_context_server.remote.events import EventStream, LogSetBack
from shared_context_server.remote.hook_options import HookOptions
from shared_context_server.remote.readers import STDERR, STDOUT, end_without_reader
from shared_context_server.remote.told import Busy, lock_waiting

Look = Callable[[HookOptions, Access, float], int | None]


def wait_and_tell(options: HookOptions, access: Access, look: Look) -> int | None:
    """Wait for at most `options.wait` seconds, and `look` after each message. Return the exit code;
    None if nothing came.

    Only one hook waits in one session of a client; another one returns at once. Raises CallError if
    the credential is refused.
    """
    deadline = time.monotonic() + options.wait
    event = read_client_event()
    options.event = options.event or event.name
    with suppress(Busy):
        lock_waiting(access, event.session_id)  # held until this process ends
        end_without_reader(STDOUT, STDERR)
        session_id = options.session_ids[0] if len(options.session_ids) == 1 else None
        while time.monotonic() < deadline:
            stream = EventStream(lambda: access, session_id, None, note=lambda text: None)
            with contextlib.closing(stream.follow(deadline)) as events, suppress(LogSetBack):
                for news in events:
                    # What came before the stream was open is found by looking once it is.
                    if news.kind in ("opened", "message"):
                        code = look(options, access, time.monotonic() + options.timeout)
                        if code is not None:
                            return code
    return None
