"""Options of the commands that call a running server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.errors import ConfigurationError
from shared_context_server.remote.access import Access, AccessError, find_access
from shared_context_server.remote.calls import split_url


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """Where the server is, and who calls it."""

    url: Annotated[
        str | None,
        Parameter(help="URL of the server; default: SCS_URL, or the one that uses the data dir."),
    ] = None
    data_dir: Annotated[
        str | None,
        Parameter(help="Data dir of the server, for its URL and key; default: SCS_DATA_DIR."),
    ] = None
    agent_id: Annotated[
        str | None, Parameter(help="The agent that calls; default: SCS_AGENT_ID.")
    ] = None

    def find_access(self) -> Access:
        """The URL and the credential. Raises AccessError."""
        access = find_access(self.url, self.data_dir, self.agent_id)
        try:
            split_url(access.url)
        except ValueError as exc:
            raise AccessError(str(exc)) from exc
        return access

    def require_access(self) -> Access:
        """The same at the start of a command. Raises ConfigurationError."""
        try:
            return self.find_access()
        except AccessError as exc:
            raise ConfigurationError(str(exc)) from exc
