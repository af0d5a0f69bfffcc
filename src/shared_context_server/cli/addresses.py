"""Listening addresses: opens the socket, checks that it is safe, and makes the URL for clients."""

from __future__ import annotations

import errno
import ipaddress
import socket

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings

BACKLOG = 2048  # connections that wait to be accepted; the kernel has its own limit
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - only compared, not bound


def base_url(host: str, port: int) -> str:
    """The URL of a server that listens on this address, for a client on this machine."""
    reachable = _ANY_ADDRESS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_safe_exposure(settings: Settings) -> None:
    """Raise ConfigurationError if other machines could connect without authentication, or with
    nothing but a session id."""
    if settings.mcp_session_identity and not is_loopback(settings.http_host):
        raise ConfigurationError(
            f"MCP_SESSION_IDENTITY=true and HTTP_HOST={settings.http_host}: anyone who knows the id of "
            "a session could write as its agent. Listen on 127.0.0.1, or set "
            "MCP_SESSION_IDENTITY=false and send auth_token with each call."
        )
    if settings.auth_enabled or settings.auth_disabled_off_loopback:
        return
    if not is_loopback(settings.http_host):
        raise ConfigurationError(
            f"AUTH_ENABLED=false and HTTP_HOST={settings.http_host}: everyone who can connect could "
            "read and write everything. Listen on 127.0.0.1, or set AUTH_ENABLED=true, or "
            "AUTH_DISABLED_OFF_LOOPBACK=true if this is what you want."
        )


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket. Raises ConfigurationError with the reason if that fails.

    Connections wait in its backlog until the server accepts them. If the name has several
    addresses, the first IPv4 address is used.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except socket.gaierror as exc:
        raise ConfigurationError(f"HTTP_HOST: {host!r} is not an address of this machine.") from exc
    except OSError as exc:
        raise ConfigurationError(_explain(exc, host, port)) from exc


def _explain(exc: OSError, host: str, port: int) -> str:
    if exc.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is in use. Perhaps a server already runs there: see "
            "shared-context-server status. Choose another port with --port or HTTP_PORT."
        )
    if exc.errno == errno.EACCES:
        return f"This user may not listen on port {port}. Choose a port above 1023."
    return f"Cannot listen on {host}, port {port}: {exc.strerror}."
