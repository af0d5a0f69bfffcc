"""SQL with names for its parameters, which asyncpg numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")  # not the :: of a cast


class Statement:
    """A statement whose parameters are written :name, for asyncpg."""

    __slots__ = ("_names", "sql")

    def __init__(self, sql: str) -> None:
        names: dict[str, int] = {}
        self.sql = _PARAMETER.sub(
            lambda match: f"${names.setdefault(match[1], len(names) + 1)}", sql
        )
        self._names = tuple(names)

    def bind(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The parameters it has, in their order; `parameters` may hold others too."""
        return [parameters[name] for name in self._names]
