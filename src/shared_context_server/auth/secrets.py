"""Generates the missing keys of a server on its first start and stores them in its data dir."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import SecretStr, ValidationError

from shared_context_server.auth.keys import generate_key
from shared_context_server.errors import ConfigurationError
from shared_context_server.private_files import require_own_directory, require_private_file
from shared_context_server.settings import Settings, read_secrets

LOCK_TIMEOUT_S = 30.0  # writing takes milliseconds: after this time the other process hangs

_HEADER = "# Made on the first start. Whoever reads these keys can read and write everything.\n"
PREVIOUS = "JWT_PREVIOUS_SECRET_KEYS"
_MAKERS: dict[str, Callable[[], str]] = {
    "API_KEY": generate_key,
    "ADMIN_API_KEY": generate_key,
    "JWT_SECRET_KEY": lambda: secrets.token_urlsafe(48),
}


def ensure_secrets(settings: Settings) -> tuple[Settings, bool]:
    """Return the settings with all keys, and whether this call generated any of them.

    A key that is missing in the settings is read from `<data dir>/secrets.env`, or generated and
    added to that file. Existing entries stay, and keys from other sources are not written. Several
    processes can do this at once: all get the same keys. The file gets mode 0600, a new directory
    0700. Raises ConfigurationError if the file cannot be written, or if it or its directory belongs
    to another user.
    """
    missing = [name for name in _MAKERS if getattr(settings, name.lower()) is None]
    path = settings.secrets_path
    if path.is_file():
        require_own_directory(path.parent)
        require_private_file(path)
        settings = _read_previous(settings)
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
        raise ConfigurationError(
            f"Another process holds the lock of {path}. Stop it, then try again."
        ) from None
    except (FileExistsError, NotADirectoryError) as exc:
        raise ConfigurationError(
            f"DATA_DIR: {path.parent} cannot be a directory: it or a part of its path is a file."
        ) from exc
    except OSError as exc:
        raise ConfigurationError(
            f"Cannot write {path}: {exc.strerror}. Set DATA_DIR to a writable directory, "
            f"or set {', '.join(missing)}."
        ) from exc
    values = present | generated
    update = {name.lower(): SecretStr(values[name]) for name in missing}
    return settings.model_copy(update=update), bool(generated)


def _read_previous(settings: Settings) -> Settings:
    """Return the settings with JWT_PREVIOUS_SECRET_KEYS of the file, if it comes from nowhere else.
    Raises ConfigurationError for a wrong value."""
    previous = read_secrets(settings.secrets_path).get(PREVIOUS)
    if previous is None or settings.jwt_previous_secret_keys is not None:
        return settings
    try:
        value = Settings(jwt_previous_secret_keys=SecretStr(previous)).jwt_previous_secret_keys
    except ValidationError as exc:
        reason = exc.errors(include_url=False, include_input=False)[0]["msg"]
        raise ConfigurationError(
            f"JWT_PREVIOUS_SECRET_KEYS in {settings.secrets_path}: {reason}."
        ) from None
    return settings.model_copy(update={PREVIOUS.lower(): value})


def _append(path: Path, entries: Mapping[str, str]) -> None:
    """Add entries to the file. It is replaced at once, so readers see the old or the new content."""
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
