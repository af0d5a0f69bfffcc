"""The command line `shared-context-server`, or `scs` for short."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cyclopts import App, Parameter

from shared_context_server import __version__
from shared_context_server.cli.standard_streams import find_output_failure, prepare_streams
from shared_context_server.display import show_printable
from shared_context_server.environment import detach_libraries
from shared_context_server.errors import (
    ConfigurationError,
    CopyError,
    InvalidArgument,
    SharedContextError,
)

USAGE_ERROR = 2  # of the command line or the configuration; cyclopts uses the same code
FAILED = 1

PROGRAM = "shared-context-server"


def _show_default(value: Any) -> str | None:
    """The default in the help; None if it says nothing: not given, a flag that is off, an empty list."""
    return None if value is None or value is False or value == () else str(value)


app = App(
    name=PROGRAM,
    help="A record that several AI agents keep together, over MCP and plain HTTP.\n\n"
    f"`{PROGRAM}` without a command starts the server, `scs` prints this help.",
    version=__version__,
    version_flags=["--version"],
    default_parameter=Parameter(show_default=_show_default),
)

# Import paths: a command's module is imported only when the command runs.
_COMMANDS = {
    "serve": ("serve:serve", "Run the server, over HTTP or for one client over stdio."),
    "clock": ("clock:clock", "Keep time and sensors in shared memory."),
    "demo": ("demo:demo", "Show three scripted agents at work; no model is needed."),
    "status": ("status:status", "Print the state of the running server."),
    "client-config": ("client_config:client_config", "Print the configuration of a client."),
    "watch": ("watch:watch", "Print messages as they come, one line each."),
    "wait": ("watch:wait", "Wait for one message and print it."),
    "hook": ("hook:hook", "Tell an agent its unread mentions, from a client's hook."),
    "guard": ("guard:guard", "Check staged files against the leases of others, before a commit."),
    "channel": ("channel:channel", "Push messages into Claude Code (preview)."),
    "token": ("token:token", "Issue a token and print it."),
    "keys": ("keys:app", "Create, list and revoke API keys."),
    "migrate": ("migrate:migrate", "Bring the schema up to date, or copy to another database."),
    "backup": ("backup:backup", "Copy the database to a file, while servers run."),
    "restore": ("backup:restore", "Restore the database from a file of backup."),
    "export": ("moving:export", "Write all data to a file."),
    "import": ("moving:import_", "Read a file of export into an empty store."),
}
for _name, (_path, _help) in _COMMANDS.items():
    app.command(f"{__name__}.{_path}", name=_name, help=_help)


def main() -> None:
    """Run the command in sys.argv. Errors that the user can fix are one line on stderr."""
    detach_libraries()
    prepare_streams()
    try:
        _run()
    except (OSError, SystemExit) as exc:
        failure = find_output_failure(exc)
        if failure is None or (isinstance(exc, SystemExit) and exc.code):
            raise
        if not isinstance(failure, BrokenPipeError):  # the reader has ended, as `head` does
            reason = failure.strerror
            print(
                f"shared-context-server: standard output cannot be written: {reason}.",
                file=sys.stderr,
            )
        sys.exit(FAILED)


def complete_words(program: str, words: list[str]) -> list[str]:
    """The words of the command line. The program that is named after the server starts it if nothing
    else is said, as `uvx --from . shared-context-server` does."""
    return words or (["serve"] if Path(program).name == PROGRAM else [])


def _run() -> None:
    """Raises SystemExit with the exit code."""
    try:
        app(complete_words(sys.argv[0], sys.argv[1:]))
    except ConfigurationError as exc:
        print(f"shared-context-server: {show_printable(str(exc))}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    except CopyError as exc:
        print(f"shared-context-server: {show_printable(str(exc))}", file=sys.stderr)
        sys.exit(FAILED)
    except SharedContextError as exc:
        # The default hint refers to details, which are not shown here.
        hint = "" if exc.hint == InvalidArgument.suggestion else f" {exc.hint}"
        print(f"shared-context-server: {show_printable(exc.message)}{hint}", file=sys.stderr)
        sys.exit(USAGE_ERROR if isinstance(exc, InvalidArgument) else FAILED)
