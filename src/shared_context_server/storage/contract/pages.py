"""One page of a listing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items of a listing in its order. `has_more`: there are further ones behind the last of them."""

    items: list[T]
    has_more: bool
