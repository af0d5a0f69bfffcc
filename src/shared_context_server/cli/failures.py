"""A failure of a command that its user is told in one line, with a hint and an exit code."""

from __future__ import annotations

from shared_context_server.remote import exits

_EXIT_CODES = {
    "INVALID_ARGUMENT": exits.USAGE,
    "CONTENT_TOO_LARGE": exits.USAGE,
    "UNAUTHENTICATED": exits.REFUSED,
    "PERMISSION_DENIED": exits.REFUSED,
    "CONFLICT": exits.CONFLICT,
    "SESSION_CLOSED": exits.CONFLICT,
    "LEASE_LOST": exits.CONFLICT,
}
_NOT_FOUND = "NOT_FOUND"


def find_exit_code(code: str) -> int:
    """The exit code for the code of an error."""
    return exits.NOT_FOUND if code.endswith(_NOT_FOUND) else _EXIT_CODES.get(code, exits.FAILED)


class CommandFailed(Exception):
    """Ends the command. `hint`: what the user can do about it, "" if that is clear."""

    def __init__(self, message: str, hint: str = "", exit_code: int = exits.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.args[0]} {self.hint}".rstrip()
