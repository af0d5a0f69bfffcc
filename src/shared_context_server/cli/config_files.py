"""Puts our part into the configuration file of a client, and keeps all else that is in it; also whole
files of ours."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared_context_server.cli.clients import SERVER_NAME, Document
from shared_context_server.errors import ConfigurationError

OWNER_ONLY = 0o600
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Change:
    """What a file is to contain. `before` is what it contained, None if there was none."""

    path: Path
    target: Path
    before: bytes | None
    after: bytes
    has_key: bool

    def write(self) -> Path | None:
        """Replace the file at once. Return its backup; None if there was no file, or if nothing had
        to be changed.

        With a key in it, only the user can read the file and its backup. Raises ConfigurationError if
        it cannot be written, or if another program has changed it meanwhile.
        """
        target = self.target
        with _explain_failures(self.path):
            if self.after == self.before:
                if self.has_key:
                    target.chmod(target.stat().st_mode & OWNER_ONLY)
                return None
            target.parent.mkdir(parents=True, exist_ok=True)
            backup = None if self.before is None else _back_up(target, self.before)
            try:
                _replace(target, self.before, self.after, has_key=self.has_key)
            except BaseException:
                if backup is not None:
                    backup.unlink(missing_ok=True)
                raise
        return backup


def prepare_change(path: Path, *documents: Document, has_key: bool) -> Change:
    """Read this JSON or TOML file, and return it with the documents in it.

    Raises ConfigurationError if it cannot be read, is something else, or would lose what is in it.
    """
    target = path.resolve()  # a link, as those of dotfile managers, stays
    is_toml = path.suffix == ".toml"
    with _explain_failures(path):
        before = target.read_bytes() if target.exists() else None
        text = "" if before is None else before.decode()
        mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
        text = text.removeprefix(mark)
        # On Windows. What has both kinds is left to the parser.
        has_crlf = 0 < text.count("\r\n") == text.count("\n")
        text = text.replace("\r\n", "\n") if has_crlf else text
        content, known = (_parse(path, text, is_toml=is_toml) for _ in range(2))
        for document in documents:
            _merge(path, content, document)
        if before is not None and known == content:
            return Change(path, target, before, before, has_key)
        after = _dump(content, text, is_toml=is_toml)
        after = mark + (after.replace("\n", "\r\n") if has_crlf else after)
        return Change(path, target, before, after.encode(), has_key)


@contextmanager
def _explain_failures(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is not UTF-8 text and was not changed.") from exc
    except RecursionError as exc:
        raise ConfigurationError(f"{path} is nested too deeply and was not changed.") from exc
    except (OSError, RuntimeError) as exc:  # RuntimeError: a loop of links, before Python 3.13
        reason = getattr(exc, "strerror", None) or str(exc)
        raise ConfigurationError(f"{path} was not changed: {reason}.") from exc


def put_file(path: Path, text: str) -> Path | None:
    """Make this the whole text of the file, which is replaced at once. Return the backup of the file;
    None if there was no file, or if it has this text. Raises ConfigurationError if that fails."""
    with _explain_failures(path):
        target = path.resolve()
        before = target.read_bytes() if target.exists() else None
    return Change(path, target, before, text.encode(), has_key=False).write()


def _parse(path: Path, text: str, *, is_toml: bool) -> MutableMapping[str, Any]:
    if is_toml:
        import tomlkit  # noqa: PLC0415 - only this needs it
        from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

        try:
            return tomlkit.parse(text)
        except TOMLKitError as exc:
            raise ConfigurationError(f"{path} is not TOML and was not changed: {exc}.") from exc
    try:
        content = (
            json.loads(
                text,
                object_pairs_hook=_to_object,
                parse_constant=_refuse_constant,
                parse_float=_to_float,
            )
            if text.strip()
            else {}
        )
    except ValueError as exc:
        raise ConfigurationError(
            f"{path} is not plain JSON and was not changed: {exc}. If it has comments, they would be "
            "lost: add the text yourself."
        ) from exc
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} is not a JSON object and was not changed.")
    return content


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(
            name for name, count in Counter(name for name, _ in pairs).items() if count > 1
        )
        raise ValueError(f"{repeated!r} is there twice in an object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _to_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _dump(content: MutableMapping[str, Any], before: str, *, is_toml: bool) -> str:
    if is_toml:
        import tomlkit  # noqa: PLC0415 - see above

        return tomlkit.dumps(content)
    indented = re.search(r'\n([ \t]+)"', before)
    indent = indented[1] if indented else "  "
    text = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
    if re.search(
        "[\ud800-\udfff]", text
    ):  # half a character, which can be written only as an escape
        text = json.dumps(content, indent=indent) + "\n"
    return text


def _merge(path: Path, content: MutableMapping[str, Any], document: Mapping[str, Any]) -> None:
    """Objects are merged, our server's entry is replaced. What a list has of ours is replaced."""
    for name, value in document.items():
        known = content.get(name)
        if isinstance(value, Mapping) and name != SERVER_NAME:
            if not isinstance(known, MutableMapping):
                if known is not None:
                    raise ConfigurationError(
                        f"{name!r} in {path} is not an object, so it was not changed."
                    )
                content[name] = {}
            _merge(path, content[name], value)
        elif isinstance(value, list):
            if known is not None and not isinstance(known, list):
                raise ConfigurationError(
                    f"{name!r} in {path} is not a list, so it was not changed."
                )
            content[name] = [
                item for item in known or [] if item not in value and not _is_ours(item)
            ]
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


def _back_up(target: Path, content: bytes) -> Path:
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    backup = target.with_name(f"{target.name}.{time}.bak")
    descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as copy:
        copy.write(content)
    return backup


def _replace(target: Path, before: bytes | None, after: bytes, *, has_key: bool) -> None:
    mode = target.stat().st_mode if target.exists() and not has_key else OWNER_ONLY
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # made 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode & 0o777)
        if (target.read_bytes() if target.exists() else None) != before:
            raise ConfigurationError(
                f"{target} was not changed: another program has just changed it. Try again."
            )
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
