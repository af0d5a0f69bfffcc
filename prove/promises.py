"""The promises that a run checks, each with the name of the error that breaks it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Promise(StrEnum):
    """The error, in words, by which a broken promise is reported."""

    LOST = "lost"
    DOUBLED = "doubled"
    GAP = "gap"
    REORDERED = "reordered"
    OWN_WRITE_NOT_READ = "own write not read"
    STALE_READ = "stale read"
    DONE_THOUGH_REFUSED = "done though refused"
    CURSOR_WENT_BACK = "cursor went back"
    VERSION = "version skipped or reused"
    UPDATE_LOST = "update lost"
    EXPIRED_SERVED = "expired entry served"
    TWO_HOLDERS = "two holders of a lease"
    TOKEN_REUSED = "token reused"
    STALE_TOKEN = "stale token accepted"
    PRIVATE_SEEN = "private seen"
    NOT_WOKEN = "waiter not woken within its bound"
    STREAM_GAP = "stream with a gap"
    TASK_DONE_TWICE = "task done twice"
    UNEXPLAINED = "unexplained answer"


MEANING = {
    Promise.LOST: "An acknowledged write, or something that a reader has seen, is gone.",
    Promise.DOUBLED: "One write is there twice, or a reader was shown one thing twice.",
    Promise.GAP: "The seqs of a log are not 1, 2, 3, …, or a page leaves out a message.",
    Promise.REORDERED: "A write acknowledged before another one began stands after it.",
    Promise.OWN_WRITE_NOT_READ: "An agent does not read what it was told is written.",
    Promise.STALE_READ: "An agent does not read what another agent was told is written.",
    Promise.DONE_THOUGH_REFUSED: "A refused write is there.",
    Promise.CURSOR_WENT_BACK: "A stored read cursor moved backwards.",
    Promise.VERSION: "Versions of an entry are not 1, 2, 3, …, each once.",
    Promise.UPDATE_LOST: "A value lacks an update that its version counts.",
    Promise.EXPIRED_SERVED: "An entry is read after its time.",
    Promise.TWO_HOLDERS: "Two agents hold one lease at the same time.",
    Promise.TOKEN_REUSED: "A fencing token stands for two holdings, or does not grow.",
    Promise.STALE_TOKEN: "A write with the token of an ended holding was accepted.",
    Promise.PRIVATE_SEEN: "An agent sees, or can count, a message that is not for it.",
    Promise.NOT_WOKEN: "A waiting call, stream or subscription was not told in time.",
    Promise.STREAM_GAP: "A stream, or a chain of waiting calls, leaves out a message.",
    Promise.TASK_DONE_TWICE: "A task was finished twice.",
    Promise.UNEXPLAINED: "An error that neither the call nor a fault explains.",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """A broken promise: what happened, and the numbers of the calls that show it."""

    promise: Promise
    text: str
    calls: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.promise}: {self.text}"
