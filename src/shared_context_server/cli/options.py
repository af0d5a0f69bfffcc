"""Options shared by several commands. Each one sets the setting of the same name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.display import show_printable
from shared_context_server.environment import EnvironmentOwner, read_sources
from shared_context_server.observability.logs import configure_logs, get_logger
from shared_context_server.settings import Settings, make_settings
from shared_context_server.unknown_settings import find_unknown_variables

_log = get_logger("settings")


def load_options(owner: EnvironmentOwner, overrides: Mapping[str, object]) -> Settings:
    """Load the settings, configure the logs, and warn about unknown settings.

    `overrides` are the given options. Raises ConfigurationError.
    """
    sources = read_sources(owner)
    settings = make_settings(sources, overrides)
    configure_logs(settings)
    for unknown in find_unknown_variables(sources):
        _log.warning(
            "unknown setting", variable=unknown.variable, place=unknown.source, hint=unknown.hint
        )
    return settings


def load_secrets(settings: Settings) -> Settings:
    """The settings with all keys, for a command that is used beside a server. If the keys had to be
    generated, print so: the data dir may be the wrong one."""
    settings, are_new = ensure_secrets(settings)
    if are_new:
        tell_generated_keys(settings)
    return settings


def tell_generated_keys(settings: Settings) -> None:
    """Print to stderr that keys were generated, and what that may mean."""
    print(
        f"Keys were generated in {show_printable(str(settings.secrets_path))}: no server has used "
        "this data dir before. If your server uses another one, name it with --data-dir.",
        file=sys.stderr,
    )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """Where the data is."""

    data_dir: Annotated[
        Path | None,
        Parameter(
            help="Directory of the data and the keys; default: SCS_DATA_DIR, else one in your home."
        ),
    ] = None
    database_url: Annotated[str | None, Parameter(help="Database, if not in the data dir.")] = None

    def load(self, owner: EnvironmentOwner = EnvironmentOwner.SERVER) -> Settings:
        """The settings with these options; see load_options."""
        return load_options(owner, self.overrides())

    def overrides(self) -> dict[str, object]:
        return asdict(self)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerOptions(StorageOptions):
    """Where the data is and where the server listens."""

    host: Annotated[str | None, Parameter(help="Address of the server; default: 127.0.0.1.")] = None
    port: Annotated[int | None, Parameter(help="Port of the server; default: 23456.")] = None

    def overrides(self) -> dict[str, object]:
        given = asdict(self)
        return {**given, "http_host": given.pop("host"), "http_port": given.pop("port")}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeOptions(ServerOptions):
    """All options of a server."""

    port: Annotated[
        int | None, Parameter(help="Port of the server; default: 23456. 0 picks a free one.")
    ] = None
    workers: Annotated[int | None, Parameter(help="Processes that serve; HTTP only.")] = None
    clock_prefix: Annotated[
        str | None, Parameter(help="Prefix of the clock that the tools read.")
    ] = None
