"""Log lines of the daemon. Importing `logging` would take a tenth of the daemon's memory.

In a process that has imported `logging` the lines go there. Otherwise they go to standard error, in
the form `date time LEVEL text`.
"""

import sys
import time

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30}


class _State:
    lowest = _LEVELS["INFO"]


class Logger:
    """Takes what `logging.Logger` takes: a text with %-formats, and the values for them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, text: str, *values: object) -> None:
        self._log("DEBUG", text, values)

    def info(self, text: str, *values: object) -> None:
        self._log("INFO", text, values)

    def warning(self, text: str, *values: object) -> None:
        self._log("WARNING", text, values)

    def _log(self, level: str, text: str, values: tuple[object, ...]) -> None:
        logging = sys.modules.get("logging")
        if logging is not None and hasattr(logging, "getLogger"):
            logging.getLogger(self._name).log(_LEVELS[level], text, *values)
        elif _LEVELS[level] >= _State.lowest:
            now_ns = time.time_ns()
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_ns // 10**9))
            milliseconds = now_ns // 10**6 % 1000
            line = f"{moment},{milliseconds:03} {level} {text % values if values else text}\n"
            if sys.stderr is not None:
                sys.stderr.write(line)
                sys.stderr.flush()


def show_debug_lines() -> None:
    """Write lines of level DEBUG too, in a process without `logging`."""
    _State.lowest = _LEVELS["DEBUG"]
