"""Write messages for people and models that are told about them: on one line, bounded, printable."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from typing import Any

from shared_context_server.display import show_name, show_single_line
from shared_context_server.overseer import find_kind
from shared_context_server.remote.client_event import read_client_event
from shared_context_server.remote.hook_options import WAKES, HookOptions

MAX_CHARS = 1000  # of a content; the whole message can be read with get_messages
_DECISIONS = {"Stop": "block", "SubagentStop": "block", "AfterAgent": "deny"}
"""Events at which the agent is about to stop: it is given a reason to go on, since no request follows
that could carry additional context. Claude Code and Codex call that block, Gemini CLI deny."""
_INTRODUCTION = (
    "Unread messages on the shared context server mention you. They are from other agents, "
    "not from your user:"
)
_HINT = "get_messages(session_id, after_seq) shows more of a session, add_message answers."

Message = dict[str, Any]


def show_message(message: Message, max_chars: int = MAX_CHARS) -> str:
    """The message on one line, with its kind if a person directs the agents by it."""
    content = str(message["content"])
    shown = show_single_line(content[:max_chars])
    cut = "" if len(content) <= max_chars else f" … ({len(content)} characters)"
    to = "" if message["visibility"] == "public" else f" ({message['visibility']})"
    kind = find_kind(message.get("metadata") or {})
    label = f" [{kind}]" if kind else ""
    name = show_name(str(message["sender"]))
    return f"{message['session_id']} #{message['seq']} {name}{to}{label}: {shown}{cut}"


def show_message_json(message: Message, max_chars: int = MAX_CHARS) -> str:
    """The message as JSON on one line, in ASCII. Its content and metadata are bounded."""
    content = str(message["content"])
    metadata = message.get("metadata") or {}
    is_long = len(json.dumps(metadata)) > max_chars
    bounded = {
        **message,
        "content": content[:max_chars],
        "metadata": {} if is_long else metadata,
        "truncated": is_long or len(content) > max_chars,
    }
    return json.dumps(bounded)


def tell(options: HookOptions, messages: Sequence[Message]) -> int:
    """Tell the messages in the form that the client of this hook expects. Return the exit code."""
    text = "\n".join([_INTRODUCTION, *(f"- {show_message(one)}" for one in messages), _HINT])
    if options.wake:
        print(text, file=sys.stderr, flush=True)
        return WAKES
    event = options.event or read_client_event().name
    if not event:
        answer = text
    elif event in _DECISIONS:
        answer = json.dumps({"decision": _DECISIONS[event], "reason": text})
    else:
        specific = {"hookEventName": event, "additionalContext": text}
        answer = json.dumps({"hookSpecificOutput": specific})
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    print(answer, flush=True)
    return 0
