"""The program behind `scs hook`, which tells an agent its unread mentions once.

Clients run it at every step of an agent. If there is nothing to tell, it is silent and takes a
fraction of 100 ms: only then needed are the modules that format and wait, so they are imported late.
"""

from __future__ import annotations

import sys
import time

from shared_context_server.remote.access import AccessError, find_access, is_client_unattended
from shared_context_server.remote.calls import CallError
from shared_context_server.remote.mentions import find_untold
from shared_context_server.remote.told import Busy, Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared_context_server.remote.access import Access
    from shared_context_server.remote.hook_options import HookOptions


def run_hook(options: HookOptions) -> int:
    """Tell what there is to tell. Return the exit code: 2 if it was told on stderr, else 0, also
    if the server cannot be reached."""
    try:
        return _run(options)
    except (AccessError, CallError, OSError, ValueError, LookupError, TypeError) as exc:
        if options.verbose:
            advice = exc.advice if isinstance(exc, CallError) else ""
            print(f"shared-context-server: {exc}{advice}", file=sys.stderr)
        return 0


def _run(options: HookOptions) -> int:
    deadline = time.monotonic() + options.timeout
    access = find_access(options.url, options.data_dir, options.agent_id)
    code = _look_and_tell(options, access, deadline)
    if code is None and options.wait and (options.unattended or not is_client_unattended()):
        from shared_context_server.remote.hook_wait import wait_and_tell  # noqa: PLC0415

        code = wait_and_tell(options, access, _look_and_tell)
    return code or 0


def _look_and_tell(options: HookOptions, access: Access, deadline: float) -> int | None:
    """Look once, and tell what is new. Return the exit code; None if there was nothing."""
    try:
        with Told(access) as told:
            before = dict(told.seqs), dict(told.activity)
            messages = find_untold(access, told, options.session_ids, deadline)
            code = None
            if messages:
                from shared_context_server.remote.notices import tell  # noqa: PLC0415

                code = tell(options, messages)
            if (told.seqs, told.activity) != before:
                told.save()
            return code
    except Busy:
        return None  # the other hook tells it
