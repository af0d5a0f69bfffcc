"""Statements with named parameters, for asyncpg, which numbers them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")  # not the :: of a cast


def within_bytes(query: str, text_columns: Sequence[str], order: str) -> str:
    """The rows of a query up to the first that takes the texts in the columns `text_columns` beyond
    :max_bytes, in this order, and the one behind a first that does; the others are not read from where PostgreSQL keeps long texts."""
    size = " + ".join(f"octet_length({column})" for column in text_columns)
    return f"""
    SELECT * FROM (
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
        """The arguments for a method of asyncpg: the SQL, then the parameters that it has, in their
        order. `parameters` may hold others too."""
        return (self.sql, *[parameters[name] for name in self._names])
