"""Tables on terminals of any width: what is left out, cut, or never touched."""

from __future__ import annotations

import os
import pty
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from rich.cells import cell_len

from shared_context_server.cli import agents, keys, memory, sessions, tasks
from shared_context_server.cli.show.layout import Shape, choose_layout
from shared_context_server.cli.show.tables import Column, print_table

SESSION = "session_0123456789abcdef"
NOW = "2026-11-01T12:00:00Z"
LONG = "Überprüfung der 日本語 Texte, then the release and all that follows. " * 3
LEASE = {"name": "src/storage/sqlite/messages.py", "session_id": SESSION, "expires_at": NOW}
ROWS: dict[str, tuple[Sequence[Column], dict[str, Any], list[str]]] = {
    "sessions": (
        sessions._COLUMNS,
        {"session_id": SESSION, "status": "active", "message_count": 1204, "unread": 17}
        | {"last_activity": NOW, "created_by": "storage-reviewer", "purpose": LONG},
        [SESSION, "active"],
    ),
    "agents": (
        agents._AGENTS,
        {"agent_id": "storage-reviewer", "agent_type": "claude", "active": True, "last_seen": NOW}
        | {"state": "working", "waits_for": {"kind": "lease", **LEASE}, "holds": [LEASE]}
        | {"status": LONG},
        ["storage-reviewer", "working"],
    ),
    "leases": (
        agents._LEASES,
        {**LEASE, "holder": "storage-reviewer"},
        [LEASE["name"], SESSION, "storage-reviewer"],
    ),
    "tasks": (
        tasks._COLUMNS,
        {"id": 1234, "state": "claimed", "priority": 5, "claimed_by": "storage-reviewer"}
        | {"expires_at": NOW, "depends_on": [1, 2, 3], "title": LONG},
        ["1234", "claimed"],
    ),
    "memory": (
        memory._COLUMNS,
        {"key": "build/targets/of/the/release/branch", "version": 12, "size_bytes": 262_144}
        | {"updated_at": NOW, "updated_by": "storage-reviewer", "metadata": {"note": LONG}},
        ["build/targets/of/the/release/branch"],
    ),
    "keys": (
        keys._COLUMNS,
        {"id": "key_0123456789abcdef", "agent_id": "team-*", "permissions": ["read", "write"]}
        | {"created_at": NOW, "status": "active", "agent_type": "claude", "expires_at": None}
        | {"last_used_at": NOW, "label": LONG},
        ["key_0123456789abcdef", '"team-*"', "active"],
    ),
}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Print on a terminal of so many columns; returns the lines."""

    def show(width: int, columns: Sequence[Column], rows: list[dict[str, Any]]) -> list[str]:
        master, slave = pty.openpty()
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "1")
        with open(slave, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
            monkeypatch.setattr(sys, "stdout", stream)
            print_table(columns, rows, nothing="none")
        monkeypatch.undo()
        written = b""
        with suppress(OSError):  # the other end is closed
            while part := os.read(master, 65_536):
                written += part
        os.close(master)
        return re.sub(r"\x1b\[[0-9;]*m", "", written.decode()).splitlines()

    return show


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_ids_and_states_are_whole_on_a_terminal_of_any_width(
    terminal: Any, name: str, width: int, capfd: pytest.CaptureFixture[str]
) -> None:
    columns, row, whole = ROWS[name]
    lines = terminal(width, columns, [row, row])
    shown = " ".join(" ".join(lines).split())
    assert all(shown.count(text) >= 2 for text in whole), shown
    is_table = all(text in lines[1] for text in whole)
    assert not is_table or all(cell_len(line) <= width for line in lines)
    assert is_table or width == 40 or name == "leases"
    left_out = [column.head for column in columns if is_table and column.head not in lines[0]]
    assert all(head in capfd.readouterr().err for head in left_out[:1])
    assert width < 200 or not left_out


def test_a_pipe_gets_every_column_whole(capfd: pytest.CaptureFixture[str]) -> None:
    columns, row, _ = ROWS["agents"]
    print_table(columns, [row], nothing="none")
    cells = capfd.readouterr().out.rstrip("\n").split("\t")
    assert len(cells) == 8
    assert cells[5] == f"lease {LEASE['name']} in {SESSION}"
    assert cells[7] == LONG


def test_a_column_without_values_is_left_out_first_and_not_told(
    terminal: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    columns = (
        Column("id", lambda one: one["id"]),
        Column("empty", lambda _: "-", rank=1),
        Column("full", lambda _: "v" * 10, rank=2),
    )
    lines = terminal(22, columns, [{"id": "x" * 10}])
    assert (lines[0].split(), capfd.readouterr().err) == (["id", "full"], "")


def test_what_is_left_is_shared_by_the_columns_that_may_be_cut() -> None:
    shapes = [Shape(10, False, 0), Shape(14, True, 0), Shape(90, True, 1)]
    assert choose_layout(shapes, 80, 2) == {0: 10, 1: 14, 2: 52}
    assert choose_layout(shapes, 40, 2) == {0: 10, 1: 13, 2: 13}
    assert choose_layout(shapes, 30, 2) == {0: 10, 1: 14}
    assert choose_layout(shapes, 20, 2) is None
