"""Remember, on this machine, which mentions an agent's hooks have told.

The server's cursor of the agent is not used for that: it says what the agent has read.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os

from shared_context_server.remote.access import find_state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from shared_context_server.remote.access import Access

MAX_SESSIONS = 1000  # remembered, the last ones that were looked at
_MAX_FILE_BYTES = 1024 * 1024
_MAX_NAME_CHARS = 200  # of 255 that a file's name may have


class Busy(Exception):
    """Another hook of the same agent has this lock now."""


class Told:
    """What was told to one agent of one server, by session. Only one process has it at a time.

    `seqs`: up to which seq the mentions of a session were told. `activity`: the session's
    last_activity when all its mentions had been told. Raises Busy, or OSError if the directory or the
    file cannot be used.
    """

    def __init__(self, access: Access) -> None:
        self._path = _find_path(access, "told")
        self.seqs: dict[str, int] = {}
        self.activity: dict[str, str] = {}

    def __enter__(self) -> Told:
        self._lock = lock_file(f"{self._path}.lock")
        try:
            with open(self._path, "rb") as file:
                known = json.loads(file.read(_MAX_FILE_BYTES))
            for session_id, (seq, activity) in known.items():
                self.seqs[session_id], self.activity[session_id] = int(seq), str(activity)
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            pass  # none yet, or a disk that was full: mentions are told once more
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._lock)

    def note(self, session_id: str, seq: int, activity: str) -> None:
        """Mentions up to `seq` were told. `activity` is "" if there are more of them."""
        self.seqs.pop(session_id, None)  # to the end: the last ones are kept
        self.seqs[session_id] = seq
        self.activity[session_id] = activity

    def save(self) -> None:
        """Replace the file, so that readers see the old or the new content."""
        kept = list(self.seqs)[-MAX_SESSIONS:]
        content = {name: [self.seqs[name], self.activity.get(name, "")] for name in kept}
        new = f"{self._path}.new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(json.dumps(content).encode())
        os.replace(new, self._path)


def lock_waiting(access: Access, client_session: str) -> int:
    """Take the lock of the one hook that waits for mentions in this session of a client. The lock
    ends with the process. Raises Busy."""
    return lock_file(_find_path(access, "waits", client_session) + ".lock")


def lock_file(path: str) -> int:
    """Lock this file and return its descriptor, which holds the lock. Raises Busy."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            raise Busy from exc
        raise
    return descriptor


def _find_path(access: Access, kind: str, more: str = "") -> str:
    directory = os.path.join(find_state_dir(), "hooks")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    name = "\0".join((access.url, access.agent_id or "", more)).encode()
    digest = name.hex()  # ids may have any characters
    if len(digest) > _MAX_NAME_CHARS:
        import hashlib  # noqa: PLC0415 - it loads OpenSSL, which is seldom needed

        digest = hashlib.sha256(name).hexdigest()
    return os.path.join(directory, f"{kind}-{digest}")
