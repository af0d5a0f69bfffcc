"""Checks of the processes that serve the data dir, and of the port."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from shared_context_server.cli.addresses import base_url
from shared_context_server.cli.checks.findings import Findings, fail, ok, warn
from shared_context_server.cli.probes import probe
from shared_context_server.remote.access import ADDRESS_FILE, AccessError, read_address
from shared_context_server.settings import Settings
from shared_context_server.storage import identify_storage

SERVER, PROCESSES = "server", "processes"
_LISTED = 8


def find_running(settings: Settings) -> str | None:
    """The URL of the server that has noted its address in the data dir and answers; else None."""
    try:
        url = read_address(str(settings.data_dir))
    except AccessError:
        return None
    return url if url is not None and probe(url, "/health").is_ours else None


def check_server(settings: Settings) -> Findings:
    """The server that has noted its address, and who else listens on the port of the settings."""
    path = settings.data_dir / ADDRESS_FILE
    try:
        url = read_address(str(settings.data_dir))
    except AccessError as exc:
        yield fail(SERVER, str(exc), f"Remove {path} unless you know who has written it.")
        return
    if url is None:
        yield ok(SERVER, "None runs on this data dir.")
    else:
        health, ready = probe(url, "/health"), probe(url, "/ready")
        pid = _read_pid(path)
        if health.is_ours and ready.is_ours:
            yield ok(SERVER, f"It answers at {url} (process {pid}) and is ready.")
        elif health.is_ours:
            hint = "Its storage does not answer: see its log, and the lines on disk and database."
            yield fail(SERVER, f"It answers at {url} but is not ready: {ready.text}.", hint)
        elif pid is not None and psutil.pid_exists(pid):
            hint = f"See its log. If process {pid} is no server, remove {path}."
            yield fail(SERVER, f"It does not answer at {url}: {health.text}.", hint)
        else:
            hint = f"It was killed. Start it again, or remove {path}."
            yield warn(SERVER, f"{path} names a server that has ended ({url}).", hint)
    yield from _check_port(settings, url)


def _check_port(settings: Settings, running: str | None) -> Findings:
    """Whether another program listens where a server would be started."""
    if settings.http_port == 0:
        return
    url = base_url(settings.http_host, settings.http_port)
    if url == running:
        return
    found = probe(url, "/health")
    if found.is_ours:
        text = f"A second server answers at {url}; it is not the one that this data dir names."
        hint = (
            "Stop it, or name it with --url. If it should use another data dir, set its DATA_DIR."
        )
        yield warn(SERVER, text, hint)
    elif found.answers:
        hint = "Choose another port with --port or HTTP_PORT."
        yield warn(SERVER, f"Another program listens on port {settings.http_port}.", hint)


def check_processes(settings: Settings) -> Findings:
    """Which processes have the database open. Several may; it is told, since one may be forgotten."""
    if not settings.storage_url.startswith("sqlite:") or settings.is_in_memory:
        return
    identity = identify_storage(settings)
    if identity is None:
        return
    found = sorted(_list_users(identity))
    if not found:
        yield ok(PROCESSES, "None has the database open.")
        return
    listed = ", ".join(f"{pid} ({name})" for pid, name in found[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    yield ok(PROCESSES, f"{len(found)} have the database open: {listed}{more}.")


def _list_users(identity: tuple[int, int]) -> Iterator[tuple[int, str]]:
    """Processes of this user, but not this one, that have the file open."""
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            for file in process.open_files():
                info = Path(file.path).stat()
                if (info.st_dev, info.st_ino) == identity:
                    yield process.pid, process.name()
                    break
        except (psutil.Error, OSError):
            continue  # of another user, or ended meanwhile


def _read_pid(path: Path) -> int | None:
    try:
        pid = json.loads(path.read_text(encoding="utf-8"))["pid"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return pid if isinstance(pid, int) else None
