"""The program behind `scs guard`, which compares the staged files of a git repository with the leases
that other agents hold on paths."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from typing import Any

from shared_context_server.path_patterns import find_matching
from shared_context_server.remote.access import Access
from shared_context_server.remote.calls import CallError, Unreachable, call_tools

_LEASES_A_CALL = 1000
# Both names of a renamed file, as a deletion and an addition; relative to the top of the repository.
_STAGED = ("git", "diff", "--cached", "--name-only", "-z", "--no-renames", "--no-relative")
_GIT_USAGE = 129
_OK_STATUS = 200
_TOO_MANY = 429
_SERVER_ERRORS = 500
_AWAY_CODES = ("UNAVAILABLE", "RATE_LIMITED")


class GitError(Exception):
    """The staged files cannot be listed. The message is for the user."""


class ServerAway(Exception):
    """The server cannot be asked now. The message is for the user."""


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A staged file that another agent holds."""

    path: str
    holder: str
    lease: str
    expires_at: str


def list_staged_files(timeout_s: float) -> list[str]:
    """Return the files that the commit changes, adds, renames or deletes. Raises GitError."""
    try:
        listed = subprocess.run(_STAGED, capture_output=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise GitError(f"git cannot list the staged files: {exc}") from exc
    if listed.returncode == _GIT_USAGE:
        # Outside of a repository, git explains the options of another form of the command.
        raise GitError("This directory is not in a git repository. Run it in one.")
    if listed.returncode:
        reason = listed.stderr.decode(errors="replace").partition("\n")[0]
        raise GitError(f"git cannot list the staged files; is this a git repository? {reason}")
    return [name.decode(errors="surrogateescape") for name in listed.stdout.split(b"\0") if name]


def find_held_files(
    access: Access, session_id: str, files: list[str], deadline: float
) -> list[HeldFile]:
    """Return those of the files that agents other than the caller hold, one entry for each lease.

    `deadline` is a time of time.monotonic(). Raises ServerAway, and CallError if the server refuses.
    """
    try:
        leases = _list_path_leases(access, session_id, deadline)
    except Unreachable as exc:
        raise ServerAway(str(exc)) from exc
    except CallError as exc:
        is_away = exc.status in (0, _TOO_MANY) or exc.status >= _SERVER_ERRORS
        if is_away or exc.code in _AWAY_CODES:
            raise ServerAway(f"The server at {access.url} does not answer: {exc}") from exc
        raise
    others = [lease for lease in leases if lease["holder"] != access.agent_id]
    patterns = [lease["paths"] for lease in others]
    return [
        HeldFile(path, others[index]["holder"], others[index]["name"], others[index]["expires_at"])
        for path in files
        for index in find_matching(path, patterns)
    ]


def _list_path_leases(access: Access, session_id: str, deadline: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    arguments: dict[str, Any] = {"session_id": session_id, "limit": _LEASES_A_CALL}
    while time.monotonic() < deadline:
        [page] = call_tools(access, [("list_leases", arguments)], deadline)
        if not page["success"]:
            raise CallError(_OK_STATUS, page["error"], page["code"])
        found += [lease for lease in page["leases"] if lease.get("paths")]
        if page["next_cursor"] is None:
            return found
        arguments["cursor"] = page["next_cursor"]
    raise TimeoutError("there are too many leases to list in time")
