"""Addresses: which to listen on, and how clients on this machine reach them."""

from __future__ import annotations

import errno
import ipaddress
import socket

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings

BACKLOG = 2048  # connections that may wait while the server is busy; the kernel caps it
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared with, not bound


def base_url(host: str, port: int) -> str:
    """The URL under which a client on this machine reaches a server that listens there."""
    reachable = _ANY_ADDRESS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_safe_exposure(settings: Settings) -> None:
    """Raise ConfigurationError if strangers could connect and be whoever they say they are, or whose
    session id they have seen."""
    if settings.mcp_session_identity and not is_loopback(settings.http_host):
        raise ConfigurationError(
            f"MCP_SESSION_IDENTITY=true and HTTP_HOST={settings.http_host}: whoever saw the id of a "
            "session could write as its agent. Listen on 127.0.0.1, or leave it off and send "
            "auth_token with each call."
        )
    if settings.auth_enabled or settings.auth_disabled_off_loopback:
        return
    if not is_loopback(settings.http_host):
        raise ConfigurationError(
            f"AUTH_ENABLED=false and HTTP_HOST={settings.http_host}: everyone who can connect could "
            "read and write everything. Listen on 127.0.0.1, or set AUTH_ENABLED=true; "
            "AUTH_DISABLED_OFF_LOOPBACK=true says that you mean it."
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError saying why there cannot be one.

    Connections wait in its backlog until the server takes it over. Of a name's addresses the
    first IPv4 one is taken.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except socket.gaierror as exc:
        raise ConfigurationError(f"HTTP_HOST: {host!r} is not an address of ours.") from exc
    except OSError as exc:
        raise ConfigurationError(_explain(exc, host, port)) from exc


def _explain(exc: OSError, host: str, port: int) -> str:
    if exc.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is in use; perhaps a server runs there already "
            "(shared-context-server status tells). Choose another one with --port or HTTP_PORT."
        )
    if exc.errno == errno.EACCES:
        return f"Port {port} needs more rights than this user has; choose one above 1023."
    return f"Cannot listen on {host}, port {port}: {exc.strerror}."
