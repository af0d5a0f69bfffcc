"""The command `doctor`: checks an installation, and says of each problem what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.checks.configuration import (
    SETTINGS,
    check_exposure,
    check_keys,
    check_settings,
)
from shared_context_server.cli.checks.data import check_data_dir, check_database, check_disk
from shared_context_server.cli.checks.findings import Finding, Findings, Level, fail
from shared_context_server.cli.checks.servers import check_processes, check_server, find_running
from shared_context_server.cli.checks.times import check_clock, check_system_time
from shared_context_server.cli.hub.options import AsJson
from shared_context_server.cli.options import StorageOptions
from shared_context_server.cli.show.values import is_terminal, print_json, show_cell
from shared_context_server.display import show_line
from shared_context_server.environment import EnvironmentOwner, read_sources
from shared_context_server.errors import ConfigurationError
from shared_context_server.observability.logs import configure_logs
from shared_context_server.remote import exits
from shared_context_server.settings import LogLevel, make_settings

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def doctor(
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    full: Annotated[
        bool, Parameter(negative="", help="Compare each index with its table too; takes longer.")
    ] = False,
    repair: Annotated[
        bool, Parameter(negative="", help="Count anew what quotas compare with, if it is wrong.")
    ] = False,
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], negative="", help="Only what is not ok.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Check settings, keys, data, disk, servers and clock, and say of each problem what to do.

    Works with and without a running server, and changes nothing without --repair. Exit codes: 0 all is well; 6
    warnings only; 1 something has failed.
    """
    findings = []
    for finding in _check_all(options, is_thorough=full, repairs=repair):
        findings.append(finding)
        if not as_json and not (quiet and finding.level is Level.OK):
            _print(finding)
    level = _find_worst(findings)
    if as_json:
        shown = [one._asdict() for one in findings if not (quiet and one.level is Level.OK)]
        print_json({"status": level, "findings": shown})
    return {Level.OK: exits.DONE, Level.WARN: exits.WARNED, Level.FAIL: exits.FAILED}[level]


def _check_all(options: StorageOptions, *, is_thorough: bool, repairs: bool) -> Findings:
    try:
        sources = read_sources(EnvironmentOwner.SERVER)
        settings = make_settings(sources, options.overrides())
    except ConfigurationError as exc:
        yield fail(SETTINGS, str(exc), "Nothing else can be checked before that is right.")
        return
    configure_logs(settings.model_copy(update={"log_level": LogLevel.ERROR}))
    has_server = find_running(settings) is not None
    yield from check_settings(settings, sources)
    yield from check_exposure(settings)
    yield from check_keys(settings)
    yield from check_data_dir(settings)
    yield from check_disk(settings)
    yield from check_database(
        settings, is_thorough=is_thorough, repairs=repairs, has_server=has_server
    )
    yield from check_server(settings)
    yield from check_processes(settings)
    yield from check_system_time()
    yield from check_clock(settings)


def _find_worst(findings: Iterable[Finding]) -> Level:
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.FAIL, Level.WARN) if level in levels), Level.OK)


def _print(finding: Finding) -> None:
    if not is_terminal():
        cells = (finding.level, finding.subject, finding.text, finding.hint)
        print("\t".join(map(show_cell, cells)), flush=True)
        return
    from rich.console import Console  # noqa: PLC0415 - a pipe needs none of it
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    line = Text(f"{finding.level:<5}", style=_COLOURS[finding.level])
    line.append(f"{finding.subject:<13} ", style="bold")
    line.append(show_line(finding.text), style="default")
    console.print(line)
    if finding.hint:
        console.print(Text(f"{'':<19}→ {show_line(finding.hint)}", style="dim"))
    sys.stdout.flush()
