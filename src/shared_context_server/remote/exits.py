"""The exit codes of the commands, which scripts rely on. docs/command-line.md explains them."""

from __future__ import annotations

DONE = 0  # what was waited for has come, or the session is closed
FAILED = 1
USAGE = 2  # of the command line or the configuration
SESSION_GONE = 3  # deleted, or there is none that the agent may read
NOT_FOUND = SESSION_GONE  # the same of a memory entry, a message or a task
REFUSED = 4  # the key or the token is not valid (any more), or may not read
CONFLICT = 5  # somebody else was faster: another version, a closed session, a lost lease
WARNED = 6  # nothing has failed, but something should be looked at
TIMED_OUT = 124  # as the program `timeout` says it
INTERRUPTED = 130  # by SIGINT, as shells say it
TERMINATED = 143  # by SIGTERM
