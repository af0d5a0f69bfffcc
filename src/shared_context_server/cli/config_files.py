"""Puts our part into the configuration file of a client, and keeps all else that is in it; also whole
files of ours."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared_context_server.cli.clients import SERVER_NAME, Document
from shared_context_server.errors import ConfigurationError

OWNER_ONLY = 0o600


def put_into_file(path: Path, document: Document, *, has_key: bool) -> Path | None:
    """Put the document into this JSON or TOML file, which is replaced at once. Return the backup of
    the file; None if there was no file, or if nothing had to be changed.

    With a key in it, only the user can read the file and its backup. Raises ConfigurationError if the
    file cannot be read, is something else, or would lose comments.
    """
    target = path.resolve()  # a link, as those of dotfile managers, stays
    is_toml = path.suffix == ".toml"
    try:
        before = target.read_text(encoding="utf-8") if target.exists() else None
        content = _parse(path, before or "", is_toml=is_toml)
        _merge(content, document)
        after = _dump(content, is_toml=is_toml)
        if before is not None and _parse(path, before, is_toml=is_toml) == content:
            if has_key:
                target.chmod(target.stat().st_mode & OWNER_ONLY)
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        backup = None if before is None else _back_up(target)
        _replace(target, after, has_key=has_key)
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is not UTF-8 text and was not changed.") from exc
    except OSError as exc:
        raise ConfigurationError(f"{path} was not changed: {exc.strerror}.") from exc
    return backup


def put_file(path: Path, text: str) -> Path | None:
    """Make this the whole text of the file, which is replaced at once. Return the backup of the file;
    None if there was no file, or if it has this text. Raises ConfigurationError if that fails."""
    target = path.resolve()
    try:
        before = target.read_bytes() if target.exists() else None
        if before == text.encode():
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        backup = None if before is None else _back_up(target)
        _replace(target, text, has_key=False)
    except OSError as exc:
        raise ConfigurationError(f"{path} was not changed: {exc.strerror}.") from exc
    return backup


def _parse(path: Path, text: str, *, is_toml: bool) -> MutableMapping[str, Any]:
    if is_toml:
        import tomlkit  # noqa: PLC0415 - only this needs it
        from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

        try:
            return tomlkit.parse(text)
        except TOMLKitError as exc:
            raise ConfigurationError(f"{path} is not TOML and was not changed: {exc}.") from exc
    try:
        content = json.loads(text) if text.strip() else {}
    except ValueError as exc:
        raise ConfigurationError(
            f"{path} is not plain JSON and was not changed: {exc}. If it has comments, they would be "
            "lost: add the text yourself."
        ) from exc
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} is not a JSON object and was not changed.")
    return content


def _dump(content: MutableMapping[str, Any], *, is_toml: bool) -> str:
    if is_toml:
        import tomlkit  # noqa: PLC0415 - see above

        return tomlkit.dumps(content)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _merge(content: MutableMapping[str, Any], document: Mapping[str, Any]) -> None:
    """Objects are merged, our server's entry is replaced. What a list has of ours is replaced."""
    for name, value in document.items():
        known = content.get(name)
        if isinstance(value, Mapping) and name != SERVER_NAME:
            if not isinstance(known, MutableMapping):
                if known is not None:
                    raise ConfigurationError(f"{name!r} in the file is not an object.")
                content[name] = {}
            _merge(content[name], value)
        elif isinstance(value, list):
            kept = known if isinstance(known, list) else []
            content[name] = [item for item in kept if item not in value and not _is_ours(item)]
            content[name] += value
        else:
            content[name] = value


def _is_ours(item: object) -> bool:
    """Whether this entry of a client's hooks runs our hook, perhaps with other options."""
    if not isinstance(item, Mapping) or not isinstance(item.get("hooks"), list):
        return False
    commands = [str(hook.get("command")) for hook in item["hooks"] if isinstance(hook, Mapping)]
    return bool(commands) and all(_runs_our_hook(command) for command in commands)


def _runs_our_hook(command: str) -> bool:
    try:
        program, *words = shlex.split(command)
    except ValueError:
        return False
    if Path(program).name in ("scs", "shared-context-server"):
        return words[:1] == ["hook"]
    return words[:3] == ["-m", "shared_context_server", "hook"]


def _back_up(target: Path) -> Path:
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    backup = target.with_name(f"{target.name}.{time}.bak")
    descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as copy, target.open("rb") as file:
        shutil.copyfileobj(file, copy)
    return backup


def _replace(target: Path, text: str, *, has_key: bool) -> None:
    mode = target.stat().st_mode if target.exists() and not has_key else OWNER_ONLY
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # made 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode & 0o777)
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
