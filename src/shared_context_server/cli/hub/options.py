"""Options of the commands that call tools, and how they open a hub."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.hub.calls import Hub
from shared_context_server.cli.hub.over_http import HttpHub
from shared_context_server.cli.hub.place import find_place
from shared_context_server.remote.access import Access

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")]
Limit = Annotated[int, Parameter(name=["--limit", "-n"], help="How many at most.")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", help="Print no result.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """Where the data is, and as which agent it is used."""

    url: Annotated[
        str | None,
        Parameter(
            help="URL of the server; default: SCS_URL, or the one that runs on the data dir."
        ),
    ] = None
    data_dir: Annotated[
        str | None,
        Parameter(help="Data dir; it is opened itself while no server runs on it."),
    ] = None
    as_: Annotated[
        str | None,
        Parameter(name="--as", help="The agent that calls; default: SCS_AGENT_ID, or operator."),
    ] = None

    @contextmanager
    def open_hub(self) -> Generator[Hub]:
        """Open what the command calls, for a with block. Raises CommandFailed."""
        place = find_place(self.url, self.data_dir, self.as_)
        if place.access is not None:
            yield HttpHub(place.access, self._find_access, is_agent_named=place.is_agent_named)
            return
        # Imports the whole server, which takes longer than all else that a command does.
        from shared_context_server.cli.hub.in_process import open_local_hub  # noqa: PLC0415

        with open_local_hub(place.data_dir, place.agent_id) as hub:
            yield hub

    def _find_access(self) -> Access:
        """The access now. Raises CommandFailed while no server runs."""
        access = find_place(self.url, self.data_dir, self.as_).access
        if access is None:
            raise CommandFailed("No server runs on the data dir.")
        return access
