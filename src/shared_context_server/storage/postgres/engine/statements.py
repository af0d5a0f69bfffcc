"""SQL statements with named parameters, for asyncpg, which numbers them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")  # not the :: of a cast


def within_bytes(columns: str, query: str, text_columns: Sequence[str], order: str) -> str:
    """Return SQL for the rows of a query, in this order, up to the one with which the sizes of
    `text_columns` exceed :max_bytes. If the first row exceeds it, the second is included too. The
    long texts of other rows are not read. `columns`: those that the query selects."""
    names = ", ".join(re.findall(r"(\w+)\s*(?:,|$)", columns))
    size = " + ".join(f"octet_length({column})" for column in text_columns)
    return f"""
    SELECT {names} FROM (
        SELECT *, coalesce(sum(least({size}, :max_bytes)) OVER (
            ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS bytes_before
        FROM ({query}) AS listed
    ) AS sized WHERE bytes_before <= :max_bytes ORDER BY {order}"""  # noqa: S608


class Statement:
    """A statement whose parameters are written :name, for asyncpg."""

    __slots__ = ("_names", "sql")

    def __init__(self, sql: str) -> None:
        names: dict[str, int] = {}
        self.sql = _PARAMETER.sub(
            lambda match: f"${names.setdefault(match[1], len(names) + 1)}", sql
        )
        self._names = tuple(names)

    def __call__(self, **parameters: Any) -> tuple[Any, ...]:
        """Return the arguments for a method of asyncpg: the SQL, then its parameters in order.
        `parameters` may contain others too."""
        return (self.sql, *[parameters[name] for name in self._names])
