"""The registry of storage backends, by the scheme of DATABASE_URL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeAlias

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.contract import Miscount, Store
from shared_context_server.storage.migrations import SchemaStatus
from shared_context_server.storage.transfer.copying import Copier

StorageId: TypeAlias = tuple[int, int]
"""What tells one database at an address from the next one there."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore. `aside`: where the former database was moved to; None if there was
    none."""

    schema: SchemaStatus
    aside: Path | None


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """The size of a database in bytes, before and after. `remark`: what its operator should know."""

    before: int
    after: int
    remark: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a database that is not as it should be. `is_damage`: data is lost or at risk."""

    text: str
    hint: str
    is_damage: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result of looking at a database. `description`: its kind, version and size.
    `newest_message_id` is 0 if there is none."""

    description: str
    newest_message_id: int
    problems: list[Problem]


class Inspect(Protocol):
    def __call__(self, settings: Settings, *, is_thorough: bool) -> Inspection: ...


class Recount(Protocol):
    def __call__(self, settings: Settings, *, mends: bool) -> list[Miscount]: ...


class OpenCopier(Protocol):
    def __call__(
        self, settings: Settings, *, read_only: bool
    ) -> AbstractAsyncContextManager[Copier]: ...


class BackUp(Protocol):
    def __call__(self, settings: Settings, destination: Path, *, force: bool) -> int: ...


@dataclass(frozen=True, slots=True)
class Backend:
    """One kind of store. Its functions do what those of the same names in storage/__init__.py
    promise. `back_up` and `restore` are None where a database is no file."""

    open_store: Callable[[Settings, StorageId | None], AbstractAsyncContextManager[Store]]
    open_copier: OpenCopier
    migrate: Callable[[Settings], list[str]]
    find_schema_status: Callable[[Settings], SchemaStatus]
    identify: Callable[[Settings], StorageId | None]
    back_up: BackUp | None
    restore: Callable[[Settings, Path], Restored] | None
    vacuum: Callable[[Settings], Vacuumed]
    count_descriptors: Callable[[Settings], int]
    inspect: Inspect
    recount: Recount
    find_directory: Callable[[Settings], Path | None]


PACKAGES = {"sqlite": "sqlite", "postgresql": "postgres", "postgres": "postgres"}
"""The package beside this module that has the BACKEND of a scheme."""

EXTRAS = {"postgres": "PostgreSQL"}
"""Packages whose driver is an extra of the same name."""


def find_backend(settings: Settings) -> Backend:
    """Return the backend of `settings.storage_url`. Raises ConfigurationError for an unknown
    scheme, and if the driver is not installed."""
    scheme = settings.storage_url.partition(":")[0]
    package = PACKAGES.get(scheme)
    if package is None:
        raise ConfigurationError(
            f"DATABASE_URL: no storage backend for {scheme!r}; use sqlite:/// or postgresql://"
        )
    try:
        backend: Backend = import_module(f"{__package__}.{package}").BACKEND
    except ImportError as exc:
        if package not in EXTRAS:
            raise
        raise ConfigurationError(
            f"DATABASE_URL: {EXTRAS[package]} needs the extra {package}. Install it from where the "
            f"server came from: pip install 'CHECKOUT[{package}]', or 'WHEEL[{package}]', with the "
            "path of either."
        ) from exc
    return backend
