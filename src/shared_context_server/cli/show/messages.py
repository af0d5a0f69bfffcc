"""Prints messages: for people on a terminal, a line each in a pipe, or as JSON lines."""

from __future__ import annotations

from typing import Any

from shared_context_server.cli.show.values import (
    is_terminal,
    print_json,
    show_agent,
    show_cell,
    show_moment,
)
from shared_context_server.display import show_name, show_printable
from shared_context_server.remote.notices import show_message

Message = dict[str, Any]

_INDENT = "    "
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green")


class MessagePrinter:
    """`names_session`: messages of several sessions are printed. A pipe always gets the session."""

    def __init__(self, *, as_json: bool, names_session: bool, max_chars: int) -> None:
        self._as_json = as_json
        self._names_session = names_session
        self._max_chars = max_chars
        self._console: Any = None
        if is_terminal() and not as_json:
            from rich.console import Console  # noqa: PLC0415 - a pipe needs none of it

            self._console = Console(highlight=False, soft_wrap=True)

    def print(self, message: Message) -> None:
        """Print one message at once."""
        if self._as_json:
            print_json(message, is_line=True)
        elif self._console is None:
            print(show_message(message, self._max_chars), flush=True)
        else:
            self._print_for_people(message)

    def _print_for_people(self, message: Message) -> None:
        from rich.text import Text  # noqa: PLC0415

        sender = str(message["sender"])
        head = Text()
        head.append(f"{show_moment(message['timestamp'])} ", style="dim")
        if self._names_session:
            head.append(f"{message['session_id']} ", style="dim")
        head.append(f"#{message['seq']} ", style="dim")
        shown = show_agent(sender, str(message.get("sender_instance") or ""))
        head.append(shown, style=f"bold {_COLOURS[sum(sender.encode()) % len(_COLOURS)]}")
        if message["recipients"]:
            names = ", ".join(show_name(str(name)) for name in message["recipients"])
            head.append(f" → {names}")
        if message["visibility"] != "public":
            head.append(f" [{message['visibility']}]", style="red")
        if message.get("requires_ack"):
            head.append(" [asks for acknowledgement]", style="red")
        if message["parent_message_id"] is not None:
            head.append(f" (answers id {message['parent_message_id']})", style="dim")
        head.append(f"  id {message['id']}", style="dim")
        self._console.print(head)
        content = str(message["content"])
        is_cut = len(content) > self._max_chars
        for line in show_printable(content[: self._max_chars]).split("\n"):
            self._console.print(Text(f"{_INDENT}{line}"))
        if is_cut:
            text = f"{_INDENT}… ({len(content)} characters; --max-chars shows more)"
            self._console.print(Text(text, style="dim"))
        if message["metadata"]:
            cell = show_cell(message["metadata"])[: self._max_chars]
            self._console.print(Text(f"{_INDENT}{cell}", style="dim"))
