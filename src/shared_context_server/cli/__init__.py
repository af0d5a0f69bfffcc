"""The command line `shared-context-server`, or `scs` for short."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnusedCliTokensError,
)

from shared_context_server import __version__
from shared_context_server.cli.failures import CommandFailed, find_exit_code
from shared_context_server.cli.help_texts import EXAMPLES, EXIT_CODES, end_of_help, find_group
from shared_context_server.cli.standard_streams import find_output_failure, prepare_streams
from shared_context_server.display import show_line, show_name, show_printable, show_quoted
from shared_context_server.environment import detach_libraries
from shared_context_server.errors import (
    ConfigurationError,
    CopyError,
    InvalidArgument,
    SharedContextError,
)
from shared_context_server.remote import exits

PROGRAM = "shared-context-server"


def _show_default(value: Any) -> str | None:
    """The default in the help; None if it says nothing: not given, a flag that is off, an empty list."""
    return None if value is None or value is False or value == () else str(value)


app = App(
    name=PROGRAM,
    help="A record that several AI agents keep together, over MCP and plain HTTP.\n\n"
    f"`{PROGRAM}` without a command starts the server, `scs` prints this help. "
    "`scs COMMAND --help` has an example of each command.",
    help_epilogue=EXIT_CODES,
    version=__version__,
    version_flags=["--version"],
    default_parameter=Parameter(show_default=_show_default),
)

# Import paths: a command's module is imported only when the command runs.
COMMANDS = {
    "serve": ("serve:serve", "Run the server, over HTTP or for one client over stdio."),
    "clock": ("clock:clock", "Keep time and sensors in shared memory."),
    "demo": ("demo:demo", "Show three scripted agents at work; no model is needed."),
    "status": ("status:status", "Print the state of the running server."),
    "doctor": ("doctor:doctor", "Check the installation, and say what to do."),
    "top": ("top:top", "Watch what the agents do, live."),
    "agents": ("agents:agents", "List the agents, and what they do."),
    "sessions": ("sessions:sessions", "List the sessions, or show one."),
    "tail": ("tail:tail", "Print the newest messages, and follow them."),
    "search": ("search:search", "Find messages and memory by their words."),
    "post": ("post:post", "Add a message to a session."),
    "memory": ("memory:app", "Read and write the values that agents keep."),
    "tasks": ("tasks:app", "List, add and finish the tasks of a session."),
    "leases": ("agents:leases", "List who holds which leases."),
    "client-config": ("client_config:client_config", "Print the configuration of a client."),
    "watch": ("watch:watch", "Print messages as they come, one line each."),
    "wait": ("watch:wait", "Wait for one message and print it."),
    "hook": ("hook:hook", "Tell an agent its unread mentions, from a client's hook."),
    "guard": ("guard:guard", "Check staged files against the leases of others, before a commit."),
    "channel": ("channel:channel", "Push messages into Claude Code (preview)."),
    "ui": ("ui:ui", "Print and open a link that signs you in to the dashboard."),
    "token": ("token:token", "Issue a token and print it."),
    "audit": ("audit:app", "List, export and verify the audit log."),
    "keys": ("keys:app", "Create, list and revoke API keys."),
    "migrate": ("migrate:migrate", "Bring the schema up to date, or copy to another database."),
    "backup": ("backup:backup", "Copy the database to a file, while servers run."),
    "restore": ("backup:restore", "Restore the database from a file of backup."),
    "vacuum": ("vacuum:vacuum", "Give the space of deleted data back to the file system."),
    "export": ("moving:export", "Write all data to a file."),
    "import": (
        "moving:import_",
        "Read a file of export, or of an older server, into an empty store.",
    ),
    "verify": ("verify:verify", "Check an exported file: its hash chain and its signature."),
    "completion": ("completion:completion", "Print the script for a shell's completion."),
}
for _name, (_path, _help) in COMMANDS.items():
    # A command that consists of others has its examples there.
    _end = {"help_epilogue": end_of_help(_name)} if _name in EXAMPLES else {}
    app.command(f"{__name__}.{_path}", name=_name, help=_help, group=find_group(_name), **_end)


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
        sys.exit(exits.FAILED)


def complete_words(program: str, words: list[str]) -> list[str]:
    """The words of the command line. The program that is named after the server starts it if nothing
    else is said, as `uvx --from . shared-context-server` does."""
    return words or (["serve"] if Path(program).name == PROGRAM else [])


def _run() -> None:
    """Raises SystemExit with the exit code."""
    try:
        app(complete_words(sys.argv[0], sys.argv[1:]), print_error=False, exit_on_error=False)
    except CycloptsError as exc:
        chain = " ".join(exc.command_chain or ())
        hint = f"See: scs {chain} --help" if chain else "See: scs --help"
        print(f"shared-context-server: {show_line(_describe(exc))} {hint}", file=sys.stderr)
        sys.exit(exits.USAGE)
    except CommandFailed as exc:
        print(f"shared-context-server: {show_printable(str(exc))}", file=sys.stderr)
        sys.exit(exc.exit_code)
    except ConfigurationError as exc:
        print(f"shared-context-server: {show_printable(str(exc))}", file=sys.stderr)
        sys.exit(exits.USAGE)
    except CopyError as exc:
        print(f"shared-context-server: {show_printable(str(exc))}", file=sys.stderr)
        sys.exit(exits.FAILED)
    except SharedContextError as exc:
        # The default hint refers to details, which are not shown here.
        hint = "" if exc.hint == InvalidArgument.suggestion else f" {exc.hint}"
        print(f"shared-context-server: {show_printable(exc.message)}{hint}", file=sys.stderr)
        sys.exit(find_exit_code(exc.code))


def _describe(exc: CycloptsError) -> str:
    """A wrong command line in words for people."""
    if isinstance(exc, UnusedCliTokensError) and exc.unused_tokens:
        words = " ".join(map(show_name, exc.unused_tokens))
        return f"{words}: the command takes no such argument."
    if isinstance(exc, UnknownCommandError) and exc.app is app and exc.unused_tokens:
        return _describe_unknown(exc.unused_tokens[0])
    argument = exc.argument
    if (
        isinstance(exc, MissingArgumentError)
        and argument is not None
        and argument.field_info.is_positional
        and not argument.tokens
        and exc.keyword is None
    ):
        return f"{argument.name.lstrip('-').upper()} is missing."
    return str(exc)


def _describe_unknown(word: str) -> str:
    """A command that does not exist. The text of the library imports all commands, to list them."""
    said = f"Unknown command {show_quoted(word)}."
    if similar := get_close_matches(word, COMMANDS, n=1):
        return f"{said} Did you mean {show_quoted(similar[0])}?"
    return f"{said} Available commands: {', '.join(COMMANDS)}."
