"""Checks of the settings and of the keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shared_context_server.cli.addresses import is_loopback, require_safe_exposure
from shared_context_server.cli.checks.findings import Findings, fail, ok, warn
from shared_context_server.environment import Source
from shared_context_server.errors import ConfigurationError
from shared_context_server.private_files import ROOT
from shared_context_server.settings import McpSessions, Settings
from shared_context_server.unknown_settings import find_unknown_variables

SETTINGS, KEYS, EXPOSURE = "settings", "keys", "exposure"

_KEY_NAMES = ("API_KEY", "ADMIN_API_KEY", "JWT_SECRET_KEY")
_FEWEST_CHARACTERS = 10  # different ones; a random key of 32 has about 24
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class _Idle(NamedTuple):
    """Settings that mean nothing while `is_idle`, and why."""

    names: tuple[str, ...]
    is_idle: Callable[[Settings], bool]
    reason: str


def _is_sqlite(settings: Settings) -> bool:
    return settings.storage_url.startswith("sqlite:")


_IDLE = (
    _Idle(
        ("postgres_pool_size", "postgres_timeout", "postgres_prepare", "postgres_listen_url"),
        _is_sqlite,
        "the database is SQLite",
    ),
    _Idle(
        (
            *("sqlite_synchronous", "sqlite_busy_timeout_ms", "sqlite_timeout"),
            *("sqlite_cache_mb", "sqlite_mmap_mb", "sqlite_readers"),
        ),
        lambda settings: not _is_sqlite(settings),
        "the database is PostgreSQL",
    ),
    _Idle(
        ("mcp_session_idle", "max_mcp_sessions", "max_mcp_sessions_per_caller"),
        lambda settings: settings.mcp_sessions is McpSessions.STATELESS,
        "MCP_SESSIONS is stateless",
    ),
    _Idle(
        ("search_index_dir",),
        lambda settings: not settings.search_index and settings.semantic_model is None,
        "SEARCH_INDEX is false",
    ),
    _Idle(
        ("clock_ntp_interval", "clock_ntp_hold"),
        lambda settings: not settings.clock_ntp or settings.clock_ntp[0] in ("kernel", "none"),
        "CLOCK_NTP names no time server",
    ),
    _Idle(
        ("auth_disabled_off_loopback",),
        lambda settings: settings.auth_enabled,
        "AUTH_ENABLED is true",
    ),
)


def check_settings(settings: Settings, sources: Sequence[Source]) -> Findings:
    """Names that are no settings, and settings that change nothing."""
    unknown = find_unknown_variables(sources)
    for one in unknown:
        yield warn(SETTINGS, f"{one.variable} in {one.source} is no setting.", one.hint)
    idle = [
        (name, rule.reason)
        for rule in _IDLE
        if rule.is_idle(settings)
        for name in rule.names
        if name in settings.model_fields_set
    ]
    for name, reason in idle:
        hint = "Remove it, or change what it depends on."
        yield warn(SETTINGS, f"{name.upper()} changes nothing: {reason}.", hint)
    if not unknown and not idle:
        given = [
            name
            for name in settings.model_fields_set
            if any(source.find(name.upper()) for source in sources)
        ]
        yield ok(SETTINGS, f"{len(given)} given, all known.")


def check_exposure(settings: Settings) -> Findings:
    """Who can connect, and whether they need a key."""
    try:
        require_safe_exposure(settings)
    except ConfigurationError as exc:
        yield fail(EXPOSURE, str(exc), "The server does not start with it.")
        return
    if not settings.auth_enabled:
        hint = "Fine on a machine of your own; else set AUTH_ENABLED=true."
        yield warn(EXPOSURE, "AUTH_ENABLED=false: callers need no key.", hint)
    elif is_loopback(settings.http_host):
        yield ok(EXPOSURE, f"Only this machine can connect ({settings.http_host}).")
    else:
        yield ok(EXPOSURE, f"Other machines can connect ({settings.http_host}); they need a key.")


def check_keys(settings: Settings) -> Findings:
    """The mode and the owner of the file of keys, and whether a key can be guessed."""
    path = settings.secrets_path
    try:
        info = path.stat()
    except FileNotFoundError:
        info = None
    except OSError as exc:
        yield fail(KEYS, f"{path} cannot be read: {exc.strerror}.", "Run this as its owner.")
        return
    if info is not None:
        mode = stat.S_IMODE(info.st_mode)
        if info.st_uid not in (os.geteuid(), ROOT):
            hint = "Run this as the user of the server."
            yield fail(KEYS, f"{path} belongs to another user, and is refused.", hint)
        elif mode & _OTHERS:
            hint = f"chmod 600 {path}, and make new keys if somebody may have read them."
            yield fail(KEYS, f"Other users can access {path} (mode {mode:04o}).", hint)
        else:
            yield ok(KEYS, f"{path} is private (mode {mode:04o}).")
    missing = [name for name in _KEY_NAMES if getattr(settings, name.lower()) is None]
    if missing:
        yield ok(KEYS, f"The next start generates {', '.join(missing)}.")
    for name in _KEY_NAMES:
        key = getattr(settings, name.lower())
        if key is not None and len(set(key.get_secret_value())) < _FEWEST_CHARACTERS:
            hint = "Make one with: openssl rand -base64 32"
            yield warn(KEYS, f"{name} can be guessed: it has few different characters.", hint)
