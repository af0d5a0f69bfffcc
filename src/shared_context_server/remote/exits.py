"""The exit codes of `watch` and `wait`, which scripts rely on."""

from __future__ import annotations

DONE = 0  # what was waited for has come, or the session is closed
FAILED = 1
USAGE = 2  # of the command line or the configuration
SESSION_GONE = 3  # deleted, or there is none that the agent may read
REFUSED = 4  # the key or the token is not valid (any more), or may not read
TIMED_OUT = 124  # as the program `timeout` says it
INTERRUPTED = 130  # by SIGINT, as shells say it
TERMINATED = 143  # by SIGTERM
