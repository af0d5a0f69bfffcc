"""The server on which the agents of the demo work."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared_context_server.cli.options import StorageOptions
from shared_context_server.cli.probes import READING_PATH
from shared_context_server.environment import EnvironmentOwner
from shared_context_server.errors import ConfigurationError
from shared_context_server.remote.access import Access, AccessError, find_access, read_address
from shared_context_server.remote.calls import CallError, get_json, split_url

PROBE_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the key of its agents. `data_dir`: where other commands find both, None if it is not
    known. `is_temporary`: the server is the demo's own."""

    url: str
    key: str | None
    data_dir: str | None = None
    is_temporary: bool = False

    def access_of(self, agent_id: str) -> Access:
        """How this agent calls it."""
        access = Access(self.url, self.key, agent_id)
        access.headers["X-Agent-Type"] = "demo"
        return access


def find_running(url: str | None, data_dir: str | None) -> Target | None:
    """The server to use; None if none runs on the data dir. Raises ConfigurationError if one was
    named by its URL, and it cannot be used."""
    try:
        found = find_access(url, data_dir)
        split_url(found.url)
    except (AccessError, ValueError) as exc:
        raise ConfigurationError(str(exc)) from exc
    if found.is_guess:
        return None
    try:
        get_json(found, READING_PATH, _deadline())
    except CallError as exc:
        raise ConfigurationError(f"The server at {found.url} refuses the demo: {exc}") from exc
    except OSError as exc:
        if url is not None:
            raise ConfigurationError(str(exc)) from exc
        return None  # it was killed, or SCS_URL names one that does not run
    return Target(found.url, found.headers.get("X-API-Key"), _find_data_dir(found.url, data_dir))


def _find_data_dir(url: str, given: str | None) -> str | None:
    """The data dir of the server with this URL; None if it is another's, or cannot be read."""
    options = StorageOptions(data_dir=None if given is None else Path(given))
    directory = str(options.load(EnvironmentOwner.PROJECT).data_dir)
    with suppress(AccessError):
        if read_address(directory) == url:
            return directory
    return None


def _deadline() -> float:
    return time.monotonic() + PROBE_S
