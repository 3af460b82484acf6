"""Statements for many rows at once: their values are bound to one ``VALUES`` list of 1, 2, 4 … `ROWS_MAX` rows.

The list is padded with NULL rows to a power of two, so that few statements need preparing. *Source*: see sqlite_batch.py.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

ROWS_MAX: Final = 1024  # of one statement: 8 columns of them stay far below SQLite's 32,766 variables


def parts(flat: list[Any], width: int) -> Iterable[tuple[list[Any], int]]:
    """Cut rows of *width* values into statements: the values, padded with NULL rows, and the number of rows that gives."""
    for start in range(0, len(flat), ROWS_MAX * width):
        part = flat[start : start + ROWS_MAX * width] if len(flat) > ROWS_MAX * width else flat
        rows = len(part) // width
        size = 1 << (rows - 1).bit_length()
        yield (part + [None] * ((size - rows) * width) if size > rows else part), size


def statement(template: str, width: int) -> Callable[[int], str]:
    """The SQL for so many rows: ``{}`` of *template* becomes their list. A padding row is NULL: it matches nothing."""

    @cache
    def sql(rows: int) -> str:
        return template.format(_values(rows, width))

    return sql


def insert(table: str, width: int) -> Callable[[int], str]:
    """The same, to put rows of *width* values into *table* (with its columns)."""
    many = statement(f"INSERT INTO {table} SELECT * FROM ({{}}) WHERE column1 IS NOT NULL", width)  # noqa: S608
    one = f"INSERT INTO {table} {_values(1, width)}"
    return lambda rows: one if rows == 1 else many(rows)


def _values(rows: int, width: int) -> str:
    return "VALUES " + ",".join(["(" + ",".join("?" * width) + ")"] * rows)
