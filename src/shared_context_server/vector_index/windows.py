"""Cut a long text into windows, each of which gets a vector of its own."""

from __future__ import annotations

from typing import NamedTuple

from shared_context_server.search_index.documents import Document

WINDOW_CHARS = 800  # about 200 tokens of English
MAX_WINDOWS = 8  # what follows them has no vector
_MIN_CHARS = 600  # a window ends at a space after these


class Window(NamedTuple):
    """A part of a document's text. `number`: 0 for the first."""

    document: Document
    number: int
    start: int
    text: str


def cut_windows(document: Document, text: str) -> list[Window]:
    """Return the windows of a document's text; one for a short text."""
    windows: list[Window] = []
    start = 0
    while len(windows) < MAX_WINDOWS and (start < len(text) or not windows):
        end = find_window_end(text, start)
        windows.append(Window(document, len(windows), start, text[start:end]))
        start = end
    return windows


def find_window_end(text: str, start: int) -> int:
    """Return where the window that starts here ends."""
    end = start + WINDOW_CHARS
    if end >= len(text):
        return len(text)
    spaces = [text.rfind(space, start + _MIN_CHARS, end) for space in ("\n", " ")]
    return max(spaces) + 1 if max(spaces) > start else end
