"""Find what a command talks to: a running server, or a data dir without one.

The data dir and the keys are found where `serve`, `status` and `keys` find them. Settings are not
checked here, because that takes longer than a command that talks to a server.
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.environment import (
    PREFIX,
    EnvironmentOwner,
    Source,
    read_env_file,
    read_sources,
)
from shared_context_server.remote import exits
from shared_context_server.remote.access import (
    DEFAULT_URL,
    SECRETS_FILE,
    Access,
    AccessError,
    find_default_data_dir,
    is_loopback,
    read_address,
)
from shared_context_server.remote.calls import split_url

DEFAULT_AGENT = "operator"
AGENT_TYPE = "operator"
DATABASE_FILE = "shared_context.db"

_KEYS = ("ADMIN_API_KEY", "API_KEY")
_PROBE_S = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """A data dir, and the access to the server that is to be called; None: no server is called, and
    the data dir is opened. `is_agent_named`: the agent id is not the default one."""

    data_dir: Path
    access: Access | None
    agent_id: str
    is_agent_named: bool = False


def find_place(url: str | None, data_dir: str | None, agent_id: str | None) -> Place:
    """Find the server, or the data dir. The arguments are options of the command line.

    A URL that is given (`url`, SCS_URL) is called. Else the server that has noted its address in the
    data dir is called, if it answers. Else the data dir is used if there is a database, or
    DATABASE_URL names one. Else the default URL is called. Raises CommandFailed.
    """
    sources = read_sources(EnvironmentOwner.SERVER)
    environment = sources[0]
    name, owner = _find_data_dir(data_dir, sources)
    directory = Path(name).expanduser().absolute()
    named_agent = agent_id or environment.values.get("SCS_AGENT_ID")
    agent = named_agent or DEFAULT_AGENT
    given_url = url or environment.values.get("SCS_URL")
    try:
        found_url = given_url or read_address(str(directory))
        if given_url is None and not (found_url and _answers(found_url)):
            if (directory / DATABASE_FILE).exists() or _find(sources, "DATABASE_URL"):
                return Place(directory, None, agent, named_agent is not None)
            if found_url is None and (data_dir is not None or owner is not None):
                raise CommandFailed(
                    f"There is no database in {directory}, and no server has noted its address there.",
                    _tell_usual_server(directory),
                )
            found_url = found_url or DEFAULT_URL
        assert found_url is not None
        found_url = found_url.rstrip("/")
        split_url(found_url)
        here = is_loopback(found_url)
        if given_url is None and not here and owner is not None and owner is not environment:
            raise CommandFailed(
                f"{owner.name} names a data dir whose server is at {found_url}, "
                "which is not this machine.",
                "Name that server with --url, or the data dir with --data-dir.",
                exits.USAGE,
            )
        key, source, is_given = _find_key(
            sources, directory, may_read_files=here or data_dir is not None or owner is environment
        )
        access = Access(found_url, key, agent, key_source=source)
    except (AccessError, ValueError) as exc:
        raise CommandFailed(str(exc), exit_code=exits.USAGE) from exc
    if not is_given:  # a key that somebody was given may be bound to another type
        access.headers["X-Agent-Type"] = AGENT_TYPE
    return Place(directory, access, agent, named_agent is not None)


def _tell_usual_server(directory: Path) -> str:
    """What to do where a data dir has neither a server nor a database."""
    usual = find_default_data_dir()
    start = f"`scs serve --data-dir {shlex.quote(str(directory))}` starts one"
    with suppress(AccessError):
        url = read_address(usual)
        if url is not None and _answers(url):
            return f"The server at {url} uses {usual}; {start} here."
    return f"{start}; without --data-dir and SCS_DATA_DIR, {usual} is used."


def _find_data_dir(option: str | None, sources: Sequence[Source]) -> tuple[str, Source | None]:
    """The data dir, and the source that names it; None: the option or the default."""
    if option is not None:
        return option, None
    for source in sources:
        if found := source.find("DATA_DIR"):
            return found[1], source
    return find_default_data_dir(), None


def _find(sources: Sequence[Source], name: str) -> str | None:
    return next((found[1] for source in sources if (found := source.find(name))), None)


def _find_key(
    sources: Sequence[Source], directory: Path, *, may_read_files: bool
) -> tuple[str | None, str, bool]:
    """The key of the first source that has one, the admin's before the ordinary one, where it comes
    from, and whether the environment gives it with our prefix. Files and unprefixed variables belong to the server, so their
    keys are only used for a server on this machine or on a data dir that was named."""
    environment = sources[0].values
    for name in _KEYS:
        if key := environment.get(PREFIX + name):
            return key, PREFIX + name, True
    if not may_read_files:
        return None, "", False
    for source in sources:
        for name in _KEYS:
            if found := source.find(name):
                variable, key = found
                return key, f"{variable} in {source.name}", False
    path = directory / SECRETS_FILE
    variables = read_env_file_if_readable(path)
    names = [spelt for name in _KEYS for spelt in (PREFIX + name, name)]
    kept = next((name for name in names if variables.get(name)), None)
    return (None, "", False) if kept is None else (variables[kept], f"{kept} in {path}", False)


def read_env_file_if_readable(path: Path) -> Mapping[str, str]:
    """The variables of a file that this user may read and that is this user's or root's; else none."""
    try:
        info = path.stat()
    except OSError:
        return {}
    if info.st_uid not in (os.geteuid(), 0) or not os.access(path, os.R_OK):
        return {}
    return read_env_file(path)


def _answers(url: str) -> bool:
    """Whether something accepts connections there. A server that was killed leaves its address."""
    try:
        _, host, port, _, _ = split_url(url)
        socket.create_connection((host, port), _PROBE_S).close()
    except (OSError, ValueError):
        return False
    return True
