"""The files of a search index: one directory for each store, in it one for each generation.

A rebuild makes a new generation. The file `current` names the one that is searched. The file
`writer.lock` is locked by the process that writes; the system releases the lock when that process
ends, however it ends.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import filelock

from shared_context_server.search_index.documents import FORMAT
from shared_context_server.search_index.errors import IndexUnusable
from shared_context_server.settings import Settings

MIN_FREE_BYTES = 50_000_000  # with less, a write that failed tells nothing of damage

_GENERATION = f"v{FORMAT}-"


class IndexFolder:
    """The directory of the index of one store."""

    def __init__(self, parent: Path, storage_url: str) -> None:
        # The URL may have a password, and its digest names nothing.
        digest = hashlib.sha256(storage_url.encode()).hexdigest()[:16]
        self.path = parent / digest
        self._current = self.path / "current"
        self._damaged = self.path / "damaged"
        # Not bound to a thread: the indexer's thread locks, and the loop's unlocks.
        self._lock = filelock.FileLock(self.path / "writer.lock", mode=0o600, thread_local=False)

    @classmethod
    def of(cls, settings: Settings) -> IndexFolder:
        """Return the directory of the index of words."""
        return cls(settings.search_index_parent, settings.storage_url)

    @property
    def is_locked(self) -> bool:
        """Whether this process writes."""
        return self._lock.is_locked

    def lock(self) -> bool:
        """Become the process that writes, unless another one is. Raises IndexUnusable if the
        directory cannot be used."""
        if self._lock.is_locked:
            return True
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        except OSError as exc:
            raise IndexUnusable(f"{self.path} cannot be written: {exc.strerror}") from exc
        return True

    def unlock(self) -> None:
        self._lock.release()

    def find_current(self) -> Path | None:
        """Return the generation to search; None if there is none of this format."""
        try:
            name = self._current.read_text()
        except (OSError, UnicodeDecodeError):
            return None
        generation = self.path / name
        if not name.startswith(_GENERATION) or generation.parent != self.path:
            return None
        return generation if generation.is_dir() else None

    def make_generation(self) -> Path:
        """Make the directory of a new generation. Raises IndexUnusable."""
        generation = self.path / f"{_GENERATION}{secrets.token_hex(8)}"
        try:
            generation.mkdir(mode=0o700)
        except OSError as exc:
            raise IndexUnusable(f"{generation} cannot be made: {exc.strerror}") from exc
        return generation

    def make_current(self, generation: Path) -> None:
        """Let all processes search this generation from now on, and remove the others. Files that
        another process has open stay readable to it. Raises IndexUnusable."""
        written = self.path / "current.new"
        try:
            written.write_text(generation.name)
            written.replace(self._current)
        except OSError as exc:
            raise IndexUnusable(f"{written} cannot be written: {exc.strerror}") from exc
        self.remove_others(generation)

    def remove_others(self, generation: Path) -> None:
        """Remove all generations but this one."""
        for other in self._generations():
            if other != generation:
                self.remove(other)

    def remove(self, generation: Path) -> None:
        """Remove a generation."""
        shutil.rmtree(generation, ignore_errors=True)

    def report_damage(self) -> None:
        """Tell the process that writes that the current generation cannot be read."""
        current = self.find_current()
        if current is not None:
            with suppress(OSError):
                self._damaged.write_text(current.name)

    def take_damage_report(self) -> bool:
        """Return whether damage of the current generation was reported since the last call."""
        try:
            name = self._damaged.read_text()
            self._damaged.unlink()
        except (OSError, UnicodeDecodeError):
            return False
        current = self.find_current()
        return current is not None and current.name == name

    def is_disk_full(self) -> bool:
        """Whether little space is left where the index is."""
        try:
            return shutil.disk_usage(self.path).free < MIN_FREE_BYTES
        except OSError:
            return False

    def size_bytes(self) -> int:
        """Return the size of all files."""
        total = 0
        for directory, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):
                    total += (Path(directory) / name).stat().st_size
        return total

    def _generations(self) -> Iterator[Path]:
        for path in self.path.iterdir():
            if path.is_dir():
                yield path
