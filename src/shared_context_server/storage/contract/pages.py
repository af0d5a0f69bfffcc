"""The type of one page of a listing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """The items of a page in order. `has_more`: there are more items after the last one."""

    items: list[T]
    has_more: bool
