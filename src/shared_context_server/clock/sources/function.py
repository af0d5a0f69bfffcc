"""Sensor source `python:package.module:function`: a Python function."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from shared_context_server.clock.errors import OptionError, SourceError
from shared_context_server.clock.sources.channels import Channels, take_channels


class FunctionSource:
    """Calls the function without arguments and takes what `take_channels` takes. Modules of the current directory are found too.

    The first read imports the module, in the source's own thread. If the import fails, the next
    read tries it again.
    """

    def __init__(self, target: str) -> None:
        self.name = f"python:{target}"
        self._module, _, self._attribute = target.partition(":")
        self._function: Callable[[], object] | None = None
        if not self._module or not self._attribute:
            raise OptionError("--source", f"{self.name!r} is not python:package.module:function")

    def read(self) -> Channels:
        if self._function is None:
            self._function = self._load()
        return take_channels(self._function(), self.name)

    def close(self) -> None:
        return None

    def _load(self) -> Callable[[], object]:
        directory = str(Path.cwd())
        if directory not in sys.path:
            sys.path.append(directory)
        importlib.invalidate_caches()
        try:
            found: object = importlib.import_module(self._module)
            for part in self._attribute.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as exc:
            raise SourceError(self.name, str(exc)) from exc
        if not callable(found):
            raise SourceError(self.name, "is not a function")
        return found
