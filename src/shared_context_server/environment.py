"""What a process is told by variables: its environment and env files. The only reader of either.

A variable counts under its prefixed name everywhere. Whether it counts without the prefix depends
on whose surroundings the process finds itself in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from shared_context_server.errors import ConfigurationError

PREFIX = "SCS_"
DOTENV = ".env"
ENV_FILE = "ENV_FILE"
READ_UNPREFIXED = "SCS_READ_UNPREFIXED"
"""Set to true where the environment is the server's own whatever is started in it: in our image."""

CLIENT_VARIABLES = frozenset({"SCS_URL", "SCS_API_KEY", "SCS_AGENT_ID", "SCS_AGENT_TYPE"})
"""What clients of a server are told; SCS_API_KEY is a setting of the server's, too."""

_TRUE = frozenset({"1", "true", "yes", "on"})
# Libraries that read the environment, and an .env, for themselves: nothing of it is meant for us.
_OF_LIBRARIES = ("FASTMCP_", "PROMETHEUS_MULTIPROC_DIR")


class Surroundings(StrEnum):
    """Whose the environment and the working directory of a process are.

    OURS: whoever set them up runs a server. Unprefixed names count, and so does `.env`.
    PROJECT: somebody's project, in which a client started the process. Prefixed names only.
    """

    OURS = "ours"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class Source:
    """Variables of one place, by name in upper case; none of them is blank."""

    place: str
    values: Mapping[str, str]
    has_unprefixed: bool

    def find(self, name: str) -> tuple[str, str] | None:
        """The variable that sets `name`, and its value."""
        candidates = (PREFIX + name, name) if self.has_unprefixed else (PREFIX + name,)
        for variable in candidates:
            if variable in self.values:
                return variable, self.values[variable]
        return None


def read_sources(surroundings: Surroundings) -> list[Source]:
    """The environment, the file that SCS_ENV_FILE names, and `.env`: the first that has a value wins.

    Raises ConfigurationError for a file that is not there or cannot be read.
    """
    values = _present(os.environ)
    is_ours = surroundings is Surroundings.OURS
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


def read_source(path: Path) -> Source:
    """The variables of an env file, which count with and without the prefix."""
    return Source(str(path.absolute()), read_env_file(path), has_unprefixed=True)


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of an env file. Raises ConfigurationError if it cannot be read or is not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # an editor may have put a BOM before it
    except OSError as exc:
        raise ConfigurationError(f"{path.absolute()} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path.absolute()} is not UTF-8 text; save it as UTF-8.") from exc
    if "\0" in text:  # UTF-16 without its BOM
        raise ConfigurationError(f"{path.absolute()} is not UTF-8 text; save it as UTF-8.")
    return _present(dotenv_values(stream=StringIO(text)))


def detach_libraries() -> None:
    """Take what libraries would read for themselves out of this process's environment.

    For processes that are ours alone, before the libraries are imported: fastmcp takes settings
    from FASTMCP_ names and from `.env`, prometheus_client writes where its variable says.
    """
    for name in [name for name in os.environ if name.upper().startswith(_OF_LIBRARIES)]:
        del os.environ[name]
    os.environ["FASTMCP_ENV_FILE"] = os.devnull


def _present(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name.upper(): value for name, value in values.items() if value and not value.isspace()}


def _is_readable_kind(path: Path) -> bool:
    """Whether there is a file or a pipe; one that may not be looked at is tried, and told of, later."""
    try:
        return path.is_file() or path.is_fifo()
    except OSError:
        return True
