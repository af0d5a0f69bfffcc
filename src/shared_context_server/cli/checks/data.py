"""Checks of the data dir, the database, the search index and the disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from pathlib import Path

from shared_context_server.cli.banner import without_password
from shared_context_server.cli.checks.findings import Finding, Findings, fail, ok, warn
from shared_context_server.errors import ConfigurationError, SharedContextError
from shared_context_server.private_files import ROOT
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.search_index.progress import read_progress
from shared_context_server.services.audit_chain import verify_audit_log
from shared_context_server.services.disk import BYTES_PER_MB as BYTES_PER_MIB
from shared_context_server.services.disk import find_reserve
from shared_context_server.settings import Settings
from shared_context_server.storage import (
    Inspection,
    Miscount,
    find_directory,
    find_schema_status,
    inspect_storage,
    recount_storage,
)

DATA_DIR, DISK, SCHEMA, DATABASE, INDEX = "data dir", "disk", "schema", "database", "search index"
AUDIT, COUNTERS = "audit log", "counters"

_LEAST_FREE_BYTES = 100_000_000
_FEW_FREE_BYTES = 1_000_000_000
_BYTES_PER_MB = 1_000_000
_NEWEST_ENTRIES = 100_000  # of the audit log, which are verified in about a second
_TOLD = 5  # counters that are wrong
_FAR_BEHIND = 10_000  # messages: a server that runs needs less than a second for each thousand


def check_data_dir(settings: Settings) -> Findings:
    """Its owner and its mode."""
    path = settings.data_dir
    try:
        info = path.stat()
    except FileNotFoundError:
        yield ok(DATA_DIR, f"{path} does not exist yet: the first start makes it.")
        return
    except OSError as exc:
        yield fail(DATA_DIR, f"{path} cannot be used: {exc.strerror}.", "Choose another DATA_DIR.")
        return
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISDIR(info.st_mode):
        yield fail(DATA_DIR, f"{path} is not a directory.", "Choose another DATA_DIR.")
    elif info.st_uid not in (os.geteuid(), ROOT):
        hint = "Run this as the user of the server, for instance with sudo -u."
        yield fail(DATA_DIR, f"{path} belongs to another user.", hint)
    elif mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        text = f"Other users can replace files in {path} (mode {mode:04o})."
        yield warn(DATA_DIR, text, f"chmod go-w {path}")
    elif not os.access(path, os.W_OK):
        yield fail(DATA_DIR, f"{path} is not writable.", "Choose another DATA_DIR.")
    else:
        yield ok(DATA_DIR, f"{path} (mode {mode:04o}).")


def check_disk(settings: Settings) -> Findings:
    """The space that is left where the data is."""
    path = place = _find_place(settings)
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = shutil.disk_usage(path)
    free, reserve = usage.free, find_reserve(settings.disk_reserve_mb, usage.total)
    text = f"{free / _BYTES_PER_MB:,.0f} MB are free for {place}."
    if free < reserve:
        text += (
            f" Below {reserve // BYTES_PER_MIB} MiB (DISK_RESERVE_MB) what adds data is refused."
        )
        yield fail(DISK, text, "Make room. Reading works, and deleting while some is left.")
    elif free < _LEAST_FREE_BYTES:
        yield fail(DISK, text, "Make room: writes are refused on a full disk.")
    elif free < _FEW_FREE_BYTES:
        yield warn(DISK, text, "Make room before writes are refused.")
    else:
        yield ok(DISK, text)


def _find_place(settings: Settings) -> Path:
    try:
        return find_directory(settings) or settings.data_dir
    except ConfigurationError:  # which the check of the settings tells
        return settings.data_dir


def check_database(
    settings: Settings, *, is_thorough: bool, repairs: bool, has_server: bool
) -> Findings:
    """Its schema, its integrity, its counters, the audit log, and how far the search index is."""
    if settings.is_in_memory:
        text = "The database is in the memory of the server, where nothing else can look at it."
        yield warn(DATABASE, text, "For more than trials, leave DATABASE_URL out.")
        return
    where = without_password(settings.storage_url)
    try:
        schema = find_schema_status(settings)
    except ConfigurationError as exc:
        yield fail(SCHEMA, str(exc), "See docs/troubleshooting.md.")
        return
    if schema.current == 0:
        folder = IndexFolder.of(settings)
        if folder.find_current() is not None:
            text = f"There is no database at {where} any more, only its search index."
            hint = "Put it back, or `scs restore FILE`. The next start makes an empty one."
            yield warn(SCHEMA, text, hint)
            return
        yield ok(SCHEMA, f"There is no database at {where} yet: the first start makes it.")
        return
    if schema.current < schema.latest:
        yield warn(
            SCHEMA,
            f"The schema is {schema.current} of {schema.latest}.",
            "Make a backup (`scs backup FILE`), then run `scs migrate`, or start the server.",
        )
    else:
        yield ok(SCHEMA, f"The schema is {schema.current}, the newest.")
    try:
        inspection = inspect_storage(settings, is_thorough=is_thorough)
    except ConfigurationError as exc:
        yield fail(DATABASE, str(exc), "Stop all servers, then `scs restore FILE`.")
        return
    for problem in inspection.problems:
        level = fail if problem.is_damage else warn
        yield level(DATABASE, problem.text, problem.hint)
    if not any(problem.is_damage for problem in inspection.problems):
        yield ok(DATABASE, f"{inspection.description}: undamaged.")
    yield from _check_index(settings, inspection, has_server=has_server)
    if schema.current == schema.latest:
        yield _check_counters(settings, repairs=repairs)
        yield _check_audit_log(settings, is_thorough=is_thorough)


def _check_counters(settings: Settings, *, repairs: bool) -> Finding:
    """Whether the counters that quotas compare with are those of what is stored."""
    try:
        found = recount_storage(settings, mends=repairs)
    except ConfigurationError as exc:
        return fail(COUNTERS, str(exc), "See docs/troubleshooting.md.")
    if not found:
        return ok(COUNTERS, "They count what is stored.")
    told = "; ".join(_describe(miscount) for miscount in found[:_TOLD])
    more = f"; and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    if repairs:
        return ok(
            COUNTERS,
            f"{len(found)} did not count what is stored, and were set right: {told}{more}.",
        )
    text = f"{len(found)} do not count what is stored, so quotas are not exact: {told}{more}."
    return warn(COUNTERS, text, "`scs doctor --repair` counts them anew; servers can keep running.")


def _describe(miscount: Miscount) -> str:
    place = (
        f"session {miscount.session_id}" if miscount.session_id else "memory outside of sessions"
    )
    named = (
        (miscount.sessions, "sessions"),
        (miscount.messages, "messages"),
        (miscount.memory_entries, "memory entries"),
        (miscount.bytes, "bytes"),
    )
    wrong = [f"{what} {abs(n)} too {'few' if n > 0 else 'many'}" for n, what in named if n]
    return f"agent {miscount.agent_id} in {place}: {', '.join(wrong)}"


def _check_audit_log(settings: Settings, *, is_thorough: bool) -> Finding:
    """Whether the hash chain of the audit log is whole; without `is_thorough` its newest entries."""
    newest = None if is_thorough else _NEWEST_ENTRIES
    try:
        report = asyncio.run(verify_audit_log(settings, newest=newest))
    except SharedContextError as exc:
        return fail(AUDIT, f"It cannot be read: {exc.message}", "See docs/troubleshooting.md.")
    if not report.is_whole:
        text = f"{report.wrong} entries are wrong or missing. {report.describe()[0]}"
        hint = "`scs audit verify` tells all; docs/operations.md#the-audit-log says what it means."
        return fail(AUDIT, text, hint)
    if not report.is_certain:
        hint = (
            "Look at them: scs audit list. An older server that still runs may have written them."
        )
        return warn(AUDIT, report.describe()[0], hint)
    return ok(AUDIT, f"The hash chain is whole: {report.entries} entries.")


def _check_index(settings: Settings, inspection: Inspection, *, has_server: bool) -> Findings:
    if not settings.search_index:
        hint = "Fine for small stores; else leave SEARCH_INDEX out."
        yield warn(INDEX, "SEARCH_INDEX=false: search looks at the newest messages only.", hint)
        return
    folder = IndexFolder.of(settings)
    generation = folder.find_current()
    if generation is None:
        if inspection.newest_message_id == 0 or not has_server:
            yield ok(INDEX, "There is none yet: a server that runs makes it.")
        else:
            yield warn(INDEX, "There is none yet.", "The running server makes it; look again soon.")
        return
    yield _check_progress(folder, generation, inspection, has_server=has_server)


def _check_progress(
    folder: IndexFolder, generation: Path, inspection: Inspection, *, has_server: bool
) -> Finding:
    try:
        progress = read_progress(generation)
    except (OSError, ValueError, TypeError, KeyError) as exc:
        hint = f"Remove {folder.path}; a server that runs makes it anew."
        return warn(INDEX, f"It cannot be read ({type(exc).__name__}).", hint)
    behind = max(0, inspection.newest_message_id - progress.changes.message_id)
    size = f"{folder.size_bytes() / _BYTES_PER_MB:.1f} MB"
    if behind == 0:
        return ok(INDEX, f"Up to date, {size}.")
    if has_server and behind > _FAR_BEHIND:
        hint = "It catches up; look for errors of search_index in the server's log if it does not."
        return warn(INDEX, f"{behind} messages behind, {size}.", hint)
    return ok(INDEX, f"{behind} messages behind, {size}: a server that runs catches up.")
