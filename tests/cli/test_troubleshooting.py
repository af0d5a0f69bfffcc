"""docs/troubleshooting.md has every code of an error, and every line of a start that fails."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import shared_context_server.auth.middleware.host_origin  # noqa: F401 - defines two errors
from shared_context_server.errors import SharedContextError
from shared_context_server.storage.sqlite.engine.failures import _REASONS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/shared_context_server"
PAGE = " ".join((ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").split())
# Errors of programs that embed the server, and of commands whose line says by itself what to do.
NOT_OF_A_START = (
    "embed/",
    "cli/client_config.py",
    "cli/config_files.py",
    "cli/demo/",
    "cli/exported_files.py",
    "cli/guard.py",
    "cli/install_links.py",
    "cli/migrate.py",
    "cli/moving.py",
    "cli/older_server.py",
    "cli/skill_files.py",
    "cli/watch.py",
    "services/audit_chain.py",
    "services/signatures.py",
    "storage/sqlite/backup.py",
)
COMPARED_CHARS = 40


def list_errors(base: type[SharedContextError] = SharedContextError) -> Iterator[str]:
    yield base.code
    for error in base.__subclasses__():
        yield from list_errors(error)


def test_every_code_of_an_error_is_explained() -> None:
    codes = {code for code in list_errors() if code.isupper()}
    assert len(codes) > 20
    assert sorted(code for code in codes if f"`{code}`" not in PAGE) == []


def list_messages() -> Iterator[tuple[str, str]]:
    """The file and the longest literal part of the message of each ConfigurationError."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name.startswith(NOT_OF_A_START):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ConfigurationError":
                parts = (
                    node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else node.args
                )
                literals = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
                if literals:
                    yield name, max(literals, key=len).strip()[:COMPARED_CHARS].strip()


def test_every_line_of_a_start_that_fails_is_explained() -> None:
    messages = list(list_messages())
    assert len(messages) > 40
    assert [message for message in messages if message[1] not in PAGE] == []


def test_every_reason_why_sqlite_fails_is_explained() -> None:
    assert sorted(reason for reason in set(_REASONS.values()) if f"`{reason}`" not in PAGE) == []
