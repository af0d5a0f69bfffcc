"""Write a session as Markdown. What agents wrote is quoted, so that it cannot look like the document."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic_core import to_json

from shared_context_server.display import show_name, show_text
from shared_context_server.models import Message, Session, Visibility


def write_head(session: Session) -> str:
    """Return the title and the facts of the session."""
    removed = f"- Messages before #{session.first_seq} were removed by age\n"
    if session.first_seq == 1:
        removed = ""
    return (
        f"# {_one_line(session.purpose)}\n\n"
        f"- Session: `{session.id}`\n"
        f"- Created by {show_name(session.created_by)}, {_time(session.created_at)}\n"
        f"- Status: {session.status.value}, access: {session.access.value}\n"
        f"{removed}\n"
    )


def write_message(message: Message) -> str:
    """Return one message: a heading, the content as a quote, and the metadata as a block of code."""
    notes = []
    if message.visibility is not Visibility.PUBLIC:
        notes.append(message.visibility.value)
    if message.recipients:
        notes.append("to " + ", ".join(map(show_name, message.recipients)))
    if message.parent_message_id is not None:
        notes.append(f"reply to message {message.parent_message_id}")
    note = f" ({'; '.join(notes)})" if notes else ""
    quoted = "\n".join(f"> {show_text(line)}" for line in message.content.split("\n"))
    text = (
        f"## #{message.seq} {show_name(message.sender)}, {_time(message.timestamp)}{note}\n\n"
        f"{quoted}\n\n"
    )
    if message.metadata:
        text += f"    {to_json(message.metadata).decode()}\n\n"
    return text


def _one_line(text: str) -> str:
    return show_text(" ".join(text.split()))


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
