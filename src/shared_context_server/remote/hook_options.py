"""The options of `scs hook`, and a parser for its usual command lines that is quick to import."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

WAKES = 2  # the exit code with which Claude Code and Gemini CLI show stderr to the model


class HookOptions:
    """The options of the command line."""

    __slots__ = (
        *("agent_id", "data_dir", "event", "session_ids", "timeout", "unattended"),
        *("url", "verbose", "wait", "wake"),
    )

    def __init__(self) -> None:
        self.url: str | None = None
        self.data_dir: str | None = None
        self.agent_id: str | None = None
        self.event: str | None = None
        self.timeout = 2.0
        self.wait = 0.0
        self.unattended = False
        self.wake = False
        self.verbose = False
        self.session_ids: list[str] = []


def parse_plainly(words: Sequence[str]) -> HookOptions | None:
    """Read the words of a usual command line; None if the complete parser has to judge them."""
    options = HookOptions()
    readers: dict[str, Callable[[str], Any]] = {
        "url": str,
        "data_dir": str,
        "agent_id": str,
        "event": str,
        "timeout": float,
        "wait": float,
    }
    left = list(words)
    while left:
        word = left.pop(0)
        name = word[2:].replace("-", "_")
        if not word.startswith("-"):
            options.session_ids.append(word)
        elif word in ("--wake", "--verbose", "--unattended"):
            setattr(options, name, True)
        elif name in readers and word.startswith("--") and left and not left[0].startswith("-"):
            try:
                setattr(options, name, readers[name](left.pop(0)))
            except ValueError:
                return None
        else:
            return None
    return options if check_limits(options) is None else None


def check_limits(options: HookOptions) -> str | None:
    """What is wrong with the options; None if nothing is."""
    if not 0 < options.timeout <= 60:
        return "--timeout must be more than 0 and at most 60 seconds."
    if not 0 <= options.wait <= 86_400:
        return "--wait must be at least 0 and at most 86400 seconds."
    if len(options.session_ids) > 20:
        return "At most 20 sessions can be named."
    return None
