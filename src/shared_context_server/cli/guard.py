"""The command `guard`: a check for git's pre-commit hook."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.remote_options import RemoteOptions
from shared_context_server.display import show_printable
from shared_context_server.errors import ConfigurationError
from shared_context_server.remote import exits
from shared_context_server.remote.calls import CallError
from shared_context_server.remote.guard import (
    GitError,
    HeldFile,
    ServerAway,
    find_held_files,
    list_staged_files,
)

_GONE_CODES = ("SESSION_NOT_FOUND",)


class WhenAway(StrEnum):
    """What to do if the server cannot be asked."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"


def guard(
    session: Annotated[
        str | None, Parameter(env_var="SCS_SESSION", help="Id of the session.")
    ] = None,
    remote: RemoteOptions = RemoteOptions(),  # noqa: B008 - frozen
    *,
    when_away: Annotated[
        WhenAway, Parameter(help="If the server cannot be asked: warn and pass, or fail.")
    ] = WhenAway.PASS,
    timeout: Annotated[float, Parameter(help="Seconds that asking may take.")] = 5.0,
) -> int:
    """Check the staged files of a git repository against the leases of others on paths.

    Exit codes: 0 nobody else holds one of them; 1 somebody does, one line for each file and lease; 2
    wrong arguments, or no repository; 3 the session was deleted or does not exist; 4 the credential
    is refused.
    """
    if not session:
        raise ConfigurationError("Name the session, or set SCS_SESSION.")
    if not 0 < timeout <= 60:
        raise ConfigurationError("--timeout must be more than 0 and at most 60 seconds.")
    access = remote.require_access()
    try:
        files = list_staged_files(timeout)
        if not files:
            return exits.DONE
        held = find_held_files(access, session, files, time.monotonic() + timeout)
    except GitError as exc:
        raise ConfigurationError(str(exc)) from exc
    except ServerAway as exc:
        if when_away is WhenAway.FAIL:
            _note(f"{exc} The commit is stopped, as --when-away fail asks.")
            return exits.FAILED
        _note(f"{exc} The staged files were not checked.")
        return exits.DONE
    except CallError as exc:
        _note(f"{exc}{exc.advice}")
        return exits.SESSION_GONE if exc.code in _GONE_CODES else exits.REFUSED
    for one in held:
        print(_show(one))
    return exits.FAILED if held else exits.DONE


def _show(held: HeldFile) -> str:
    path = held.path.encode(errors="surrogateescape").decode(errors="backslashreplace")
    path = path.replace("\n", "\\n")
    return show_printable(
        f"{path}: held by {held.holder} (lease {held.lease}) until {held.expires_at}"
    )


def _note(text: str) -> None:
    print(f"shared-context-server: {show_printable(text)}", file=sys.stderr)
