"""A failure of a command that its user is told in one line, with a hint and an exit code."""

from __future__ import annotations

from shared_context_server.remote import exits


class CommandFailed(Exception):
    """Ends the command. `hint`: what the user can do about it, "" if that is clear."""

    def __init__(self, message: str, hint: str = "", exit_code: int = exits.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.args[0]} {self.hint}".rstrip()
