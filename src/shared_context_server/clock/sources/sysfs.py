"""Reads numbers and words from files of /sys."""

from pathlib import Path


def read_number(path: Path) -> float | None:
    """The number in a file; None if there is no such file. Raises OSError if it has no number."""
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        return None
    try:
        return float(text)
    except ValueError as exc:
        raise OSError(f"{path} contains {text[:40]!r}, not a number") from exc


def read_word(path: Path) -> str:
    """The text of a file without its newline; empty if there is no such file."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
