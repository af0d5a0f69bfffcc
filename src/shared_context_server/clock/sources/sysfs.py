"""Reads numbers and words from files of /sys."""

import os


def list_files(directory: str, start: str, end: str = "") -> list[str]:
    """The paths in `directory` whose names begin and end like this. Empty without a directory."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = [name for name in names if name.startswith(start) and name.endswith(end)]
    return [f"{directory}/{name}" for name in found]


def find_number(path: str) -> int:
    """The first number in the name of a file; 0 if it has none."""
    name = path.rpartition("/")[2]
    digits = "".join(letter if letter in "0123456789" else " " for letter in name).split()
    return int(digits[0]) if digits else 0


def read_number(path: str) -> float | None:
    """The number in a file; None if there is no such file. Raises OSError if it has no number."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    try:
        return float(text)
    except ValueError as exc:
        raise OSError(f"{path} contains {text[:40]!r}, not a number") from exc


def read_word(path: str) -> str:
    """The text of a file without its newline; empty if there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""
