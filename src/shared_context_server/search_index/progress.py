"""Keep how far the store has been read beside each commit of the index.

The engine commits by replacing its meta file, which has a number that grows with each commit. The
progress file is written first, and has the number of the commit before it. If the meta file still has
that number, the commit has not happened, and the earlier progress counts.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shared_context_server.models import MemoryAddress
from shared_context_server.storage.contract import Anchor, ChangePosition

Commit = tuple[int, int]
"""What identifies the state of the meta file."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the store has been read. `memory`: the last memory entry of the first reading.
    `is_complete`: the first reading has come to its end. `is_erasure_due`: texts that were deleted
    may still be in the files."""

    changes: ChangePosition = field(default_factory=lambda: ChangePosition(0, 0))
    memory: MemoryAddress | None = None
    is_complete: bool = False
    is_erasure_due: bool = False


def read_progress(generation: Path) -> Progress:
    """Return the progress of the last commit. Raises an error if a file is missing or damaged."""
    noted = json.loads(_progress_path(generation).read_bytes())
    has_happened = read_meta(generation)["opstamp"] != noted["opstamp"]
    return to_progress(noted["after" if has_happened else "before"])


def begin_progress(generation: Path) -> None:
    """Note that nothing has been read, unless there is a note."""
    if not _progress_path(generation).exists():
        announce_commit(generation, Progress(), Progress())


def announce_commit(generation: Path, before: Progress, after: Progress) -> None:
    """Note what the next commit will bring, durably."""
    noted = {
        "opstamp": read_meta(generation)["opstamp"],
        "before": asdict(before),
        "after": asdict(after),
    }
    path = _progress_path(generation)
    written = path.with_suffix(".new")
    with written.open("w") as file:
        json.dump(noted, file)
        file.flush()
        os.fsync(file.fileno())
    written.replace(path)


def read_meta(generation: Path) -> dict[str, Any]:
    """Return the engine's meta file."""
    return json.loads((generation / "meta.json").read_bytes())  # type: ignore[no-any-return]


def find_commit(generation: Path) -> Commit:
    """Return what changes with each commit, which replaces the meta file."""
    found = (generation / "meta.json").stat()
    return found.st_mtime_ns, found.st_ino


def _progress_path(generation: Path) -> Path:
    return generation / "progress.json"


def to_progress(fields: dict[str, Any]) -> Progress:
    """Return the progress that dataclasses.asdict has made a dict of. It may take parts of it."""
    position = fields.pop("changes")
    anchor, memory = position.pop("anchor"), fields.pop("memory")
    return Progress(
        ChangePosition(**position, anchor=None if anchor is None else Anchor(**anchor)),
        None if memory is None else MemoryAddress(**memory),
        **fields,
    )
