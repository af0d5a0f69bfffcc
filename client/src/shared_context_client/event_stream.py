"""Parse server-sent events, as the HTML Living Standard specifies in "Parsing an event stream" and
"Interpreting an event stream".
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_LINE_END = re.compile("\r\n|\n|\r")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event. `id` is the last id that was sent, with this event or before it."""

    type: str
    data: str
    id: str


class EventStreamParser:
    """Turns the chunks of a stream into events. An event that the end of the stream cuts off is
    dropped. `retry` is ignored: the server sends none, and `Retries` sets the client's pauses."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._is_at_start = True
        self._ended_with_cr = False
        self._type = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Return the events that these bytes complete."""
        text = self._decoder.decode(chunk)
        if not text:
            return []
        if self._is_at_start:
            text = text.removeprefix(_BYTE_ORDER_MARK)
            self._is_at_start = False
        if self._ended_with_cr:  # a CR has ended the line already; the LF belongs to it
            text = text.removeprefix("\n")
        self._ended_with_cr = text.endswith("\r") or (self._ended_with_cr and not text)
        *lines, self._rest = _LINE_END.split(self._rest + text)
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        return None  # a comment (empty name), or an unknown field

    def _dispatch(self) -> ServerEvent | None:
        event = ServerEvent(self._type or "message", "\n".join(self._data), self._id)
        has_data = bool(self._data)
        self._type, self._data = "", []
        return event if has_data else None
