"""Find the running server and the credential for calling it.

A client starts these programs in somebody's project, so only variables with the prefix SCS_ count,
and no `.env` file is read.
"""

from __future__ import annotations

import json
import os

ADDRESS_FILE = "server.json"
"""In the data dir, while a server runs: its URL and process id."""
SECRETS_FILE = "secrets.env"
DEFAULT_URL = "http://127.0.0.1:23456"

_ROOT = 0
_KEY_NAMES = ("SCS_API_KEY", "API_KEY")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=")
_MAX_FILE_BYTES = 65_536


class AccessError(Exception):
    """The server cannot be found or may not be called. The message is for the user."""


class Access:
    """The URL of a server, and the headers that identify the caller. `is_guess`: the URL is the
    default, since nothing says where the server is. `key_source`: the variable or the file that the
    key comes from, for people; "" without a key."""

    __slots__ = ("agent_id", "headers", "is_guess", "key_source", "url")

    def __init__(
        self,
        url: str,
        key: str | None,
        agent_id: str | None,
        *,
        is_guess: bool = False,
        key_source: str = "",
    ) -> None:
        self.url = url
        self.key_source = key_source if key is not None else ""
        self.is_guess = is_guess
        self.agent_id = agent_id
        self.headers: dict[str, str] = {}
        for name, value in (("X-API-Key", key), ("X-Agent-ID", agent_id)):
            if value is not None:
                self.headers[name] = _require_header_text(name, value)


def find_access(
    url: str | None = None, data_dir: str | None = None, agent_id: str | None = None
) -> Access:
    """Find the server's URL and the API key. The arguments are options of the command line.

    The URL is the first of: `url`, SCS_URL, that of the server which runs on the data dir, the
    default. The key is SCS_API_KEY, or that of the data dir. The key of the default data dir is sent
    to this machine only. Raises AccessError.
    """
    variables = _read_variables()
    given_dir = data_dir or variables.get("SCS_DATA_DIR")
    directory = os.path.abspath(os.path.expanduser(given_dir or find_default_data_dir()))
    given_url = url or variables.get("SCS_URL")
    known_url = given_url or read_address(directory)
    found_url = (known_url or DEFAULT_URL).rstrip("/")
    key, source = variables.get("SCS_API_KEY"), "SCS_API_KEY"
    if key is None and (given_dir is not None or is_loopback(found_url)):
        key, source = _read_key(directory), f"API_KEY in {os.path.join(directory, SECRETS_FILE)}"
    agent_id = agent_id or variables.get("SCS_AGENT_ID")
    return Access(found_url, key, agent_id, is_guess=known_url is None, key_source=source)


def find_default_data_dir() -> str:
    """The data dir of a server that was not told another one."""
    return _find_user_dir("XDG_DATA_HOME", ".local/share", "user_data_dir")


def find_state_dir() -> str:
    """The directory for what these programs remember."""
    return _find_user_dir("XDG_STATE_HOME", ".local/state", "user_state_dir")


def is_client_unattended() -> bool:
    """Whether Claude Code runs without a user, as `claude -p` does. It ends only after its hooks."""
    return os.environ.get("CLAUDE_CODE_SESSION_ATTENDED") == "0"


def _find_user_dir(variable: str, usual: str, name: str) -> str:
    if (
        os.uname().sysname == "Linux"
    ):  # as platformdirs does, whose import takes longer than all else
        parent = os.environ.get(variable, "").strip() or os.path.expanduser(f"~/{usual}")
        return os.path.join(parent, "shared-context-server")
    import platformdirs  # noqa: PLC0415 - see above

    return str(getattr(platformdirs, name)("shared-context-server"))


def _read_variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("SCS_") and value and not value.isspace()
    }


def is_loopback(url: str) -> bool:
    """Whether the URL is one of this machine."""
    host = url.partition("://")[2].partition("/")[0]
    return host in _LOOPBACK or host.startswith(tuple(f"{name}:" for name in _LOOPBACK))


def read_address(directory: str) -> str | None:
    """The URL of the server that runs on this data dir; None if none does, or it cannot be known."""
    text = _read_own_file(os.path.join(directory, ADDRESS_FILE))
    if text is None:
        return None
    try:
        url = json.loads(text)["url"]
    except (ValueError, TypeError, KeyError):
        return None
    return url if isinstance(url, str) else None


def _read_key(directory: str) -> str | None:
    path = os.path.join(directory, SECRETS_FILE)
    text = _read_own_file(path)
    if text is None:
        return None
    found = _read_plain(text)
    if found is None:  # edited by hand
        from pathlib import Path  # noqa: PLC0415 - usually not needed

        from shared_context_server.environment import read_env_file  # noqa: PLC0415
        from shared_context_server.errors import ConfigurationError  # noqa: PLC0415

        try:
            found = read_env_file(Path(path))
        except ConfigurationError as exc:
            raise AccessError(str(exc)) from exc
    return next((found[name] for name in _KEY_NAMES if found.get(name)), None)


def _read_plain(text: str) -> dict[str, str] | None:
    """The variables of a file as the server writes it; None if it has anything else, such as quotes."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            if not _PLAIN.issuperset(line):
                return None
            found[name] = value
    return found


def _read_own_file(path: str) -> str | None:
    """The text of a file of this user or of root; None if it does not exist.

    Another user's file could send the key to a server of theirs. Raises AccessError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise AccessError(f"{path} cannot be read: {exc.strerror}.") from exc
    with open(descriptor, "rb") as file:
        if os.fstat(descriptor).st_uid not in (os.geteuid(), _ROOT):
            raise AccessError(f"{path} belongs to another user and is not used.")
        try:
            return file.read(_MAX_FILE_BYTES).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise AccessError(f"{path} cannot be read: {exc}.") from exc


def _require_header_text(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise AccessError(f"The value of {name} has characters that cannot be sent in a header.")
    return value
