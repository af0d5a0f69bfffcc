"""Errors of the search index. They do not leave the services: a search works without the index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class IndexUnusable(Exception):
    """The index is damaged, or its files cannot be read or written."""


@contextmanager
def engine_errors() -> Iterator[None]:
    """Raise the engine's errors as IndexUnusable. A panic of its Rust code is not an Exception."""
    try:
        yield
    except IndexUnusable:
        raise
    except Exception as exc:
        raise IndexUnusable(str(exc)) from exc
    except BaseException as exc:
        if type(exc).__name__ != "PanicException":
            raise
        raise IndexUnusable(str(exc)) from exc
