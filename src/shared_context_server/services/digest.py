"""Summarise what is new in a session, within a token budget. Equal input gives equal text.

A token is counted as four ASCII characters, the usual rule of thumb for English; any other character
counts as a token of its own, and one beyond the basic plane (emoji) as two. That is on the safe side
for most scripts.

A message begins its line with its seq and sender. Further lines of it stand behind display.QUOTE, so
that nothing that is written in a message or a name looks like a message of somebody else.

Metadata that the digest understands, on the message it belongs to:
- decision: `"type": "decision"`, or `"decision"` set to true or a text;
- question: `"type": "question"`, or `"question"` set to true or a text. It counts as answered
  once a later message has it as parent_message_id, or names its id in `"answers"`;
- what a person directs: `"overseer": "stop"`, see overseer.py. It stands behind the sender.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from shared_context_server import policy
from shared_context_server.display import show_line, show_name, show_text
from shared_context_server.models import Caller, Message
from shared_context_server.overseer import find_kind
from shared_context_server.services.context import Services
from shared_context_server.services.messages import require_cursor
from shared_context_server.storage.contract import MessageQuery, SenderCount

WINDOW = 1_000  # newest messages that are read one by one; older ones are only counted
UNITS_PER_TOKEN = 4  # a unit is an ASCII character
LINE_CHARS = 160
SHORT_CHARS = 80
MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class Digest:
    text: str
    message_count: int
    estimated_tokens: int
    next_after_seq: int
    first_seq: int


async def get_digest(
    services: Services,
    caller: Caller,
    session_id: str,
    *,
    after_seq: int | None,
    max_tokens: int,
) -> Digest:
    """Summarise the visible messages after `after_seq` (default: the caller's stored cursor).
    Raises CursorLost if the log ends before it."""
    guard = partial(policy.require_session_read, caller)
    store = services.store
    if after_seq is None:
        after_seq = await store.sessions.get_cursor(session_id, caller.agent_id)
    page = await store.messages.list_visible(session_id, caller, MessageQuery(limit=WINDOW), guard)
    require_cursor(page, after_seq)
    messages = [message for message in page.messages if message.seq > after_seq]
    counts = await store.messages.count_by_sender(
        session_id, caller, after_seq=after_seq, guard=guard
    )
    text = compose(messages, counts, after_seq, max_tokens, page.first_seq)
    services.mentions.clear_page(caller, session_id, messages)
    return Digest(
        text=text,
        message_count=sum(count.count for count in counts),
        estimated_tokens=estimate_tokens(text),
        next_after_seq=messages[-1].seq if messages else max(after_seq, page.first_seq - 1),
        first_seq=page.first_seq,
    )


def estimate_tokens(text: str) -> int:
    """Return the number of tokens as the module's docstring counts them, rounded up."""
    return -(-count_units(text) // UNITS_PER_TOKEN)


def count_units(text: str) -> int:
    """Return the length in quarters of a token."""
    if text.isascii():
        return len(text)
    ascii_count = len(text.encode("ascii", "ignore"))
    beyond_basic = len(text.encode("utf-16-le", "surrogatepass")) // 2 - len(text)
    return ascii_count + UNITS_PER_TOKEN * (len(text) - ascii_count + beyond_basic)


def compose(
    messages: list[Message],
    counts: list[SenderCount],
    after_seq: int,
    max_tokens: int,
    first_seq: int = 1,
) -> str:
    """Return the text of the digest, at most `max_tokens` long. It says so if the log begins after
    the cursor now."""
    budget = max_tokens * UNITS_PER_TOKEN
    is_behind = after_seq + 1 < first_seq
    removed = [f"Messages before seq {first_seq} were removed by age."] if is_behind else []
    if not messages:
        return cut("\n".join([f"Nothing new after seq {after_seq}.", *removed]), budget)
    head = [_headline(messages, counts), *removed]
    head += _section("Decisions:", [m for m in messages if _is_marked(m, "decision")])
    head += _section("Open questions:", _open_questions(messages))
    text = cut("\n".join(head), budget * 3 // 5)
    total = max(len(messages), sum(count.count for count in counts))
    lines = _message_lines(messages, total, budget - count_units(text))
    return "\n".join([text, *lines])


def _headline(messages: list[Message], counts: list[SenderCount]) -> str:
    total = sum(count.count for count in counts)
    who = ", ".join(f"{show_name(count.sender)} ({count.count})" for count in counts[:MAX_LISTED])
    more = f" and {len(counts) - MAX_LISTED} more" if len(counts) > MAX_LISTED else ""
    return (
        f"{total} message{'s' if total != 1 else ''} up to seq {messages[-1].seq}, "
        f"from {who}{more}."
    )


def _section(title: str, messages: list[Message]) -> list[str]:
    if not messages:
        return []
    shown = messages[-MAX_LISTED:]
    omitted = len(messages) - len(shown)
    lines = [title]
    if omitted:
        lines.append(f"- ({omitted} older omitted)")
    return lines + [f"- {_prefix(m)}{shorten(m.content, LINE_CHARS)}" for m in shown]


def _prefix(message: Message) -> str:
    kind = find_kind(message.metadata)
    label = f" [{kind}]" if kind else ""
    return f"#{message.seq} {show_name(message.sender)}{label}: "


def _is_marked(message: Message, kind: str) -> bool:
    mark = message.metadata.get(kind)
    return (
        message.metadata.get("type") == kind
        or mark is True
        or (isinstance(mark, str) and mark != "")
    )


def _open_questions(messages: list[Message]) -> list[Message]:
    answered: set[int] = set()
    for message in messages:
        if message.parent_message_id is not None:
            answered.add(message.parent_message_id)
        answers = message.metadata.get("answers")
        for answer in answers if isinstance(answers, list) else [answers]:
            if isinstance(answer, int):
                answered.add(answer)
    return [m for m in messages if _is_marked(m, "question") and m.id not in answered]


def _message_lines(messages: list[Message], total: int, budget: int) -> list[str]:
    """Write the newest messages in full within half of the budget, shorten older ones, and only
    count the oldest.

    They are chosen from the newest back, and written in the order of the log.
    """
    reserve = len("\nMessages:\n(9999999 older omitted)")
    left = budget - reserve
    if left <= 0:
        return []
    full_left = left // 2
    lines: list[str] = []
    for message in reversed(messages):
        line = ""
        if len(message.content) <= full_left:
            line = _prefix(message) + show_text(message.content)
        if line and count_units(line) + 1 <= full_left:
            full_left -= count_units(line) + 1
        else:
            full_left = 0
            line = _prefix(message) + shorten(message.content, SHORT_CHARS)
        cost = count_units(line) + 1
        if cost > left:
            break
        left -= cost
        lines.append(line)
    omitted = total - len(lines)
    note = [f"({omitted} older omitted)"] if omitted else []
    return ["Messages:", *note, *reversed(lines)]


def shorten(text: str, limit: int) -> str:
    """Return one line of at most `limit` characters."""
    line = " ".join(text.split())
    # Escaping only makes it longer, so the part cut off here could not be shown.
    shown = show_line(line[:limit])
    return shown if len(line) <= limit >= len(shown) else shown[: limit - 1] + "…"


def cut(text: str, limit: int) -> str:
    """Return the longest prefix of the text that has at most `limit` units."""
    low, high = 0, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        if count_units(text[:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return text[:low]
