"""Messages as pages show them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared_context_server.models import Ack, Message, Visibility
from shared_context_server.overseer import find_kind

MAX_SHOWN_CHARS = 3000
EXCERPT_CHARS = 90
HUES = 8  # classes of colours for names, in ui.css

_VISIBILITY = {
    Visibility.PUBLIC: ("", "neutral", ""),
    Visibility.PRIVATE: ("private", "private", "Its sender, its recipients and admins see it"),
    Visibility.AGENT_ONLY: (
        "agents of its type",
        "warn",
        "Agents of the sender's type and admins see it",
    ),
    Visibility.ADMIN_ONLY: ("admins only", "danger", "Only admins see it"),
}
_FENCE = re.compile(r"^```[^`\n]*$", re.MULTILINE)
_TASK_STATES = {"ready": "neutral", "claimed": "accent", "done": "ok", "failed": "danger"}


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message, cut to what a list shows. `parent` is None if it replies to nothing, or to what the
    reader may not see. `overseer`: the kind of advice that a person gave, or "". `hue` numbers the
    colour of the sender's name."""

    message: Message
    parent: Message | None
    content: str
    is_cut: bool
    visibility: tuple[str, str, str]
    overseer: str
    task: tuple[int, str, str] | None
    asks_ack: bool
    is_ack: bool
    hue: int

    @property
    def segments(self) -> list[tuple[bool, str]]:
        """The content in parts: whether each is code, and its text. Code stands between fences, or is
        all of a message whose metadata names a language."""
        if isinstance(self.message.metadata.get("language"), str):
            return [(True, self.content)]
        parts: list[tuple[bool, str]] = []
        for index, part in enumerate(_FENCE.split(self.content)):
            is_code = index % 2 == 1
            text = part.strip("\n") if is_code or index else part.rstrip("\n")
            if text:
                parts.append((is_code, text))
        return parts or [(False, self.content)]

    @property
    def parent_excerpt(self) -> str:
        if self.parent is None:
            return ""
        line = " ".join(self.parent.content[: EXCERPT_CHARS * 4].split())
        return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1] + "…"


def view_message(
    message: Message, parents: Mapping[int, Message], *, is_whole: bool = False
) -> MessageView:
    """Return the message as it is shown; `is_whole`: with all of its content."""
    is_cut = not is_whole and len(message.content) > MAX_SHOWN_CHARS
    parent_id = message.parent_message_id
    return MessageView(
        message=message,
        parent=None if parent_id is None else parents.get(parent_id),
        content=message.content[:MAX_SHOWN_CHARS] if is_cut else message.content,
        is_cut=is_cut,
        visibility=_VISIBILITY[message.visibility],
        overseer=find_kind(message.metadata),
        task=_read_task(message),
        asks_ack=message.ack is Ack.REQUIRED,
        is_ack=message.ack is Ack.GIVEN,
        hue=choose_hue(message.sender),
    )


def view_messages(messages: Sequence[Message], parents: Mapping[int, Message]) -> list[MessageView]:
    return [view_message(message, parents) for message in messages]


def choose_hue(name: str) -> int:
    """Return the number of the colour of a name, the same on every page."""
    return hashlib.sha256(name.encode()).digest()[0] % HUES


def _read_task(message: Message) -> tuple[int, str, str] | None:
    """Return id, state and tone of the task whose change this message tells; None for others."""
    metadata = message.metadata
    task_id, state = metadata.get("task_id"), metadata.get("state")
    if metadata.get("type") != "task" or type(task_id) is not int or not isinstance(state, str):
        return None
    return task_id, state[:20], _TASK_STATES.get(state, "neutral")
