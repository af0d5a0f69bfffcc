"""What happens to the configuration file of a client when our part is put into it."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.cli.config_files import Document, prepare_change, put_file
from shared_context_server.errors import ConfigurationError


def put_into_file(path: Path, *documents: Document, has_key: bool) -> Path | None:
    return prepare_change(path, *documents, has_key=has_key).write()


ENTRY = {"mcpServers": {"shared-context": {"url": "new"}}}


def hook(command: str) -> dict[str, Any]:
    return {"hooks": [{"type": "command", "command": command}]}


def test_other_entries_stay_and_our_old_one_goes(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    theirs = {"theme": "dark", "mcpServers": {"other": {"url": "é"}}}
    old = {"mcpServers": {**theirs["mcpServers"], "shared-context": {"url": "old", "headers": {}}}}  # type: ignore[dict-item]
    path.write_text(json.dumps({**theirs, **old}))
    assert put_into_file(path, ENTRY, has_key=True) is not None
    new = json.loads(path.read_text())
    assert new == {
        "theme": "dark",
        "mcpServers": {"other": {"url": "é"}, "shared-context": {"url": "new"}},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_whole_file_of_ours_is_replaced_with_a_backup_of_another_text(tmp_path: Path) -> None:
    path = tmp_path / "skills" / "SKILL.md"
    assert put_file(path, "new é\n") is None
    assert path.read_text(encoding="utf-8") == "new é\n"
    assert put_file(path, "new é\n") is None
    path.write_text("changed by its user")
    backup = put_file(path, "newer\n")
    assert backup is not None
    assert (path.read_text(), backup.read_text()) == ("newer\n", "changed by its user")
    assert len(list(path.parent.iterdir())) == 2
    with pytest.raises(ConfigurationError, match=re.escape(str(path / "below"))):
        put_file(path / "below", "a file has none below it")


def test_our_old_hooks_are_replaced_and_those_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    others = [hook("make lint"), hook("/opt/other hook --now")]
    ours = hook("/new/bin/scs hook --agent-id b")
    stale = [
        hook("'/a path/scs' hook --agent-id a"),
        hook("/usr/bin/python3 -m shared_context_server hook"),
    ]
    path.write_text(json.dumps({"hooks": {"Stop": [others[0], *stale, others[1]]}}))
    put_into_file(path, {"hooks": {"Stop": [ours]}}, has_key=False)
    assert json.loads(path.read_text()) == {"hooks": {"Stop": [*others, ours]}}


def test_the_mode_stays_where_no_key_is_written_and_links_stay_links(tmp_path: Path) -> None:
    path, target = tmp_path / "settings.json", tmp_path / "dotfiles.json"
    target.write_text("{}")
    target.chmod(0o644)
    path.symlink_to(target)
    backup = put_into_file(path, ENTRY, has_key=False)
    assert path.is_symlink()
    assert json.loads(target.read_text()) == ENTRY
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert backup is not None
    assert put_into_file(path, ENTRY, has_key=True) is None
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "name, text, reason",
    [
        ("settings.json", '{"a": 1} // mine', "comments"),
        ("settings.json", "[]", "not a JSON object"),
        ("settings.json", '{"mcpServers": 1}', "not an object"),
        ("settings.json", '{"mcpServers": {"a": 1, "a": 2}}', "'a' is there twice"),
        ("settings.json", '{"a": NaN}', "NaN is no number"),
        ("settings.json", '{"a": 1e999}', "too large a number"),
        ("settings.json", '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ("settings.json", '{"allow": "mine"}', "not a list"),
        ("settings.json", "\udce9", "UTF-8"),
        ("config.toml", "a = ", "not TOML"),
    ],
)
def test_a_file_that_is_something_else_is_not_changed(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=reason):
        put_into_file(path, ENTRY, {"allow": ["ours"]}, has_key=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name, text",
    [
        ("settings.json", '\ufeff{\r\n\t"a": "\\ud800"\r\n}\r\n'),
        ("config.toml", "# mine\r\n[a]\r\nb = 1\r\n"),
    ],
)
def test_line_ends_indents_and_marks_stay_as_the_user_s_editor_wrote_them(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    backup = put_into_file(path, ENTRY, has_key=True)
    assert backup is not None
    assert backup.read_bytes() == text.encode()
    after = path.read_bytes()
    assert after.startswith(text.encode().removesuffix(b"\r\n}\r\n"))
    assert 3 < after.count(b"\r\n") == after.count(b"\n")
    assert put_into_file(path, ENTRY, has_key=True) is None


def test_what_another_program_has_written_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text("{}")
    change = prepare_change(path, ENTRY, has_key=True)
    path.write_text('{"theirs": 1}')
    with pytest.raises(ConfigurationError, match="another program"):
        change.write()
    assert path.read_text() == '{"theirs": 1}'
    assert list(tmp_path.iterdir()) == [path]
