"""Reads the environment variables and env files. No other module reads them.

A variable with the prefix SCS_ is always used. Without the prefix it is used only if the environment
belongs to the server, see `EnvironmentOwner`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import entry_points
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from shared_context_server.errors import ConfigurationError

logger = logging.getLogger(__name__)

PREFIX = "SCS_"
DOTENV = ".env"
ENV_FILE = "ENV_FILE"
READ_UNPREFIXED = "SCS_READ_UNPREFIXED"
"""true in our container image: there the environment always belongs to the server."""

CLIENT_VARIABLES = frozenset(
    {"SCS_URL", "SCS_API_KEY", "SCS_AGENT_ID", "SCS_AGENT_TYPE", "SCS_SESSION"}
)
"""Variables of clients. SCS_API_KEY is also a setting of the server."""

_TRUE = frozenset({"1", "true", "yes", "on"})
# Libraries read these variables themselves. They are not meant for this server.
_LIBRARY_VARIABLES = ("FASTMCP_", "PROMETHEUS_MULTIPROC_DIR")
# Each names entry points of a group. OpenTelemetry fails on other names, some while it is imported.
_TRACE_ENTRY_POINTS = {
    "OTEL_PROPAGATORS": "opentelemetry_propagator",
    "OTEL_PYTHON_CONTEXT": "opentelemetry_context",
    "OTEL_PYTHON_METER_PROVIDER": "opentelemetry_meter_provider",
    "OTEL_PYTHON_TRACER_PROVIDER": "opentelemetry_tracer_provider",
}
_TRACE_ENDPOINTS = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}
_TRACE_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class EnvironmentOwner(StrEnum):
    """To whom the environment and the working directory of the process belong.

    SERVER: they were set up for this server. Unprefixed names and `.env` are used.
    PROJECT: a client started the process in a user's project. Only prefixed names are used.
    """

    SERVER = "server"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class Source:
    """The variables of one source, by name in upper case. Blank ones are left out."""

    name: str
    values: Mapping[str, str]
    has_unprefixed: bool

    def find(self, name: str) -> tuple[str, str] | None:
        """The variable that sets `name`, and its value; None if there is none."""
        candidates = (PREFIX + name, name) if self.has_unprefixed else (PREFIX + name,)
        for variable in candidates:
            if variable in self.values:
                return variable, self.values[variable]
        return None


def read_sources(owner: EnvironmentOwner) -> list[Source]:
    """Read the environment, the file that SCS_ENV_FILE names, and `.env`. Earlier sources win.

    Raises ConfigurationError for a file that does not exist or cannot be read.
    """
    values = _drop_blank(os.environ)
    is_ours = owner is EnvironmentOwner.SERVER
    has_unprefixed = is_ours or values.get(READ_UNPREFIXED, "").lower() in _TRUE
    environment = Source("the environment", values, has_unprefixed)
    sources = [environment]
    if found := environment.find(ENV_FILE):
        variable, name = found
        if not _is_readable_kind(Path(name)):
            raise ConfigurationError(f"{variable} names {name}, which is not a file.")
        sources.append(read_source(Path(name)))
    if is_ours and _is_readable_kind(Path(DOTENV)):
        sources.append(read_source(Path(DOTENV)))
    return sources


def read_client_names() -> tuple[str | None, str | None]:
    """The agent id and type that the environment gives a client that starts the server itself."""
    values = _drop_blank(os.environ)
    return values.get("SCS_AGENT_ID"), values.get("SCS_AGENT_TYPE")


def find_client_session() -> str:
    """The id of the Claude Code session that has started this process, "" if none has. Claude Code sets
    it for each MCP server that it starts."""
    return os.environ.get("CLAUDE_CODE_SESSION_ID", "")


def choose_trace_exporters() -> list[str]:
    """The exporters of traces that OpenTelemetry's standard variables choose, by the names that their
    packages have registered. Empty if the variables name neither an endpoint nor an exporter.

    The variables are not settings of this server: OpenTelemetry reads them from the environment only,
    and defines them for every program.
    """
    values = _drop_blank(os.environ)
    if values.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    chosen = values.get("OTEL_TRACES_EXPORTER")
    if chosen is None and not values.keys() & _TRACE_ENDPOINTS:
        return []
    protocol = next((values[name] for name in _TRACE_PROTOCOLS if name in values), "")
    otlp = "otlp_proto_grpc" if protocol.strip() == "grpc" else "otlp_proto_http"
    names = [name.strip() for name in (chosen or "otlp").split(",")]
    return [otlp if name == "otlp" else name for name in names if name not in ("", "none")]


def read_source(path: Path) -> Source:
    """The variables of an env file, with and without the prefix."""
    return Source(str(path.absolute()), read_env_file(path), has_unprefixed=True)


def read_env_file(path: Path) -> dict[str, str]:
    """Read an env file. Raises ConfigurationError if it cannot be read or is not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # an editor may have added a BOM
    except OSError as exc:
        raise ConfigurationError(f"{path.absolute()} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path.absolute()} is not UTF-8 text. Save it as UTF-8.") from exc
    if "\0" in text:  # UTF-16 without its BOM
        raise ConfigurationError(f"{path.absolute()} is not UTF-8 text. Save it as UTF-8.")
    return _drop_blank(dotenv_values(stream=StringIO(text)))


def detach_libraries() -> None:
    """Remove variables from the environment that libraries would read.

    Call it before these libraries are imported, and only in a process of the server's own: fastmcp
    reads FASTMCP_ variables and `.env`, prometheus_client writes files where its variable says.
    """
    for name in [name for name in os.environ if name.upper().startswith(_LIBRARY_VARIABLES)]:
        del os.environ[name]
    os.environ["FASTMCP_ENV_FILE"] = os.devnull
    wrong = [name for name in os.environ if not _is_usable_for_traces(name, os.environ[name])]
    for name in wrong:
        del os.environ[name]
    if wrong:
        logger.warning(
            "Not used, because OpenTelemetry cannot use the value: %s.", ", ".join(wrong)
        )


def _is_usable_for_traces(name: str, value: str) -> bool:
    """Whether OpenTelemetry starts with this variable. True for variables that are not its own."""
    if name.startswith("OTEL_") and name.endswith("_LIMIT"):
        text = value.strip().lower()
        return text in ("", "unset") or (text.isascii() and text.isdecimal())
    if name not in _TRACE_ENTRY_POINTS or not value.strip():
        return True
    known = {*entry_points(group=_TRACE_ENTRY_POINTS[name]).names, "none"}
    if name != "OTEL_PROPAGATORS":
        return value in known - {"none"}
    return all(part.strip() in known for part in value.split(","))


def _drop_blank(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name.upper(): value for name, value in values.items() if value and not value.isspace()}


def _is_readable_kind(path: Path) -> bool:
    """Whether this is a file or a pipe. If that cannot be determined, reading it reports the error."""
    try:
        return path.is_file() or path.is_fifo()
    except OSError:
        return True
