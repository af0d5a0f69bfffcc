"""The result of a check."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """What a check has found. `hint`: what to do; "" if there is nothing to do."""

    level: Level
    subject: str
    text: str
    hint: str = ""


Findings = Iterator[Finding]


def ok(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


def warn(subject: str, text: str, hint: str) -> Finding:
    return Finding(Level.WARN, subject, text, hint)


def fail(subject: str, text: str, hint: str) -> Finding:
    return Finding(Level.FAIL, subject, text, hint)
