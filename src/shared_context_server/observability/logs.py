"""Configures logging: one format for all lines, without credentials, to stderr.

Modules get their logger from `get_logger`. A server process calls `configure_logs` once. Without that
call, the logging of the host program applies.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol, TextIO

import structlog
from pydantic import SecretStr
from structlog.processors import JSONRenderer, StackInfoRenderer, TimeStamper, format_exc_info
from structlog.stdlib import BoundLogger, ProcessorFormatter, add_log_level, filter_by_level
from structlog.typing import EventDict, Processor

from shared_context_server.errors import SharedContextError
from shared_context_server.observability.redaction import Redactor
from shared_context_server.observability.request_ids import add_request_id
from shared_context_server.observability.throttle import Throttle

ROOT = "shared_context_server"
THROTTLE = Throttle(ROOT)

_MULTILINE = frozenset({"exception", "stack"})  # other fields stay on one line
# fastmcp adds handlers that wrap lines and print tracebacks in boxes. uvicorn adds handlers with its
# default log_config.
_LIBRARIES = ("fastmcp", "mcp", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class LogSettings(Protocol):
    """The settings of logging."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...
    @property
    def api_key(self) -> SecretStr | None: ...
    @property
    def admin_api_key(self) -> SecretStr | None: ...
    @property
    def jwt_secret_key(self) -> SecretStr | None: ...
    @property
    def previous_secrets(self) -> tuple[bytes, ...]: ...


def _add_logger_name(logger: Any, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    name = logger.name if record is None else record.name
    event["logger"] = name.removeprefix(f"{ROOT}.")
    return event


_COMMON: tuple[Processor, ...] = (
    _add_logger_name,
    add_request_id,
    add_log_level,
    TimeStamper(fmt="iso", utc=True),
    StackInfoRenderer(),
    format_exc_info,
)
_OURS: tuple[Processor, ...] = (
    filter_by_level,
    *_COMMON,
    Redactor(),  # for programs that embed the server and use their own format
    ProcessorFormatter.wrap_for_formatter,
)


def get_logger(name: str) -> BoundLogger:
    """The logger of a module of this package. It is cheap enough to create at import."""
    stdlib_logger = logging.getLogger(f"{ROOT}.{name}")
    stdlib_logger.addFilter(THROTTLE)
    logger: BoundLogger = structlog.wrap_logger(
        stdlib_logger,
        processors=_OURS,
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def configure_logs(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Send all log lines of this process, also those of libraries, to `stream` (default: stderr).

    Call it after the import of fastmcp, which adds handlers. It may be called again. LOG_LEVEL applies
    to this package. Libraries log from WARNING, with LOG_LEVEL=DEBUG from INFO; never at DEBUG, because
    they would log arguments. uvicorn's start and stop lines are logged at INFO.
    """
    stream = stream or sys.stderr
    is_human = settings.log_format == "human" or (settings.log_format == "auto" and stream.isatty())
    handler = _Handler(stream)
    handler.addFilter(_is_no_answer)
    THROTTLE.forget()
    handler.addFilter(THROTTLE)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=_COMMON,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                Redactor(_secrets(settings)),
                *(_human(stream) if is_human else [JSONRenderer()]),
            ],
        )
    )
    level = logging.getLevelNamesMapping()[settings.log_level]
    _take_over(handler)
    quiet = logging.INFO if level <= logging.DEBUG else max(level, logging.WARNING)
    logging.getLogger().setLevel(quiet)
    logging.getLogger("uvicorn").setLevel(max(level, logging.INFO))
    logging.getLogger(ROOT).setLevel(level)


def _take_over(handler: logging.Handler) -> None:
    """Make `handler` the only handler, also for warnings."""
    logging.captureWarnings(True)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.setLevel(logging.NOTSET)
        library.propagate = True
    root = logging.getLogger()
    root.handlers[:] = [handler]


def _secrets(settings: LogSettings) -> Iterator[str]:
    for secret in (settings.api_key, settings.admin_api_key, settings.jwt_secret_key):
        if secret is not None:
            yield secret.get_secret_value()
    yield from (secret.decode() for secret in settings.previous_secrets)


def _human(stream: TextIO) -> list[Processor]:
    return [
        _escape_controls,
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        ),
    ]


def _escape_controls(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escape line breaks and control sequences of callers, which could imitate log lines."""
    return {
        name: _escaped(value, "\n" if name in _MULTILINE else "")
        if isinstance(value, str)
        else value
        for name, value in event.items()
    }


def _escaped(text: str, allowed: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in allowed else char.encode("unicode_escape").decode()
        for char in text
    )


def _is_no_answer(record: logging.LogRecord) -> bool:
    """Drop FastMCP's tracebacks of errors that are answers to a call."""
    error = record.exc_info[1] if record.exc_info else None
    cause = None if error is None else error.__cause__
    return not (isinstance(cause, SharedContextError) and cause.status < 500)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        # logging's default would print the record without redaction.
        with suppress(OSError, ValueError):
            self.stream.write(f"a line of the logger {record.name} could not be written\n")
