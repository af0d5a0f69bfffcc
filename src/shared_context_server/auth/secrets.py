"""The keys of a server that was given none: made on its first start, kept beside its data."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import SecretStr

from shared_context_server.auth.keys import generate_key
from shared_context_server.errors import ConfigurationError
from shared_context_server.private_files import require_own_directory, require_private_file
from shared_context_server.settings import Settings, read_secrets

LOCK_TIMEOUT_S = 30.0  # writing the file takes milliseconds; longer than this is a stuck process

_HEADER = "# Made on the first start. Whoever reads these keys can read and write everything.\n"
_MAKERS: dict[str, Callable[[], str]] = {
    "API_KEY": generate_key,
    "ADMIN_API_KEY": generate_key,
    "JWT_SECRET_KEY": lambda: secrets.token_urlsafe(48),
}


def ensure_secrets(settings: Settings) -> tuple[Settings, bool]:
    """The settings with all keys, and whether this call generated any of them.

    What is missing from the settings is taken from `<data dir>/secrets.env`, or generated and
    added there (0600; the directory is made 0700). Entries that are there stay as they are, keys
    that come from elsewhere are not written. Any number of processes may do this at once: all get
    the same keys. Rights of others in the file are taken away. Raises ConfigurationError when the
    file cannot be written, and when it or its directory is another user's.
    """
    missing = [name for name in _MAKERS if getattr(settings, name.lower()) is None]
    path = settings.secrets_path
    if path.is_file():
        require_own_directory(path.parent)
        require_private_file(path)
    if not missing:
        return settings, False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_own_directory(path.parent)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_TIMEOUT_S, mode=0o600):
            present = read_secrets(path)
            generated = {name: _MAKERS[name]() for name in missing if name not in present}
            if generated:
                _append(path, generated)
    except Timeout:
        raise ConfigurationError(f"Another process holds the lock of {path}.") from None
    except (FileExistsError, NotADirectoryError) as exc:
        raise ConfigurationError(
            f"DATA_DIR: {path.parent} cannot be a directory, since it or a part of its path is a file."
        ) from exc
    except OSError as exc:
        raise ConfigurationError(
            f"Cannot write {path}: {exc.strerror}. Set DATA_DIR to a writable directory, "
            f"or set {', '.join(missing)}."
        ) from exc
    values = present | generated
    update = {name.lower(): SecretStr(values[name]) for name in missing}
    return settings.model_copy(update=update), bool(generated)


def _append(path: Path, entries: Mapping[str, str]) -> None:
    """Replace the file by one that holds `entries` too: a reader sees the old one or the new one."""
    text = path.read_text() if path.is_file() else _HEADER
    if text and not text.endswith("\n"):
        text += "\n"
    text += "".join(f"{name}={value}\n" for name, value in entries.items())
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made 0600
    written = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            written.unlink()
        raise
