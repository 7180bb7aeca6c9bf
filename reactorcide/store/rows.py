"""A job's row: its columns, written as SQL, and what a list shows of them.

What every job goes through is written as SQL: building these statements anew each time takes peewee several
times as long as SQLite takes to run them.
"""

from collections.abc import Sequence
from typing import Any

import peewee
from peewee import fn

from reactorcide.domain.definition import JOB_FIELDS
from reactorcide.store.models import JobRow, JSONField

COLUMNS = tuple(JobRow._meta.columns)
COLUMN_LIST = ", ".join(COLUMNS)
_JSON_COLUMNS = tuple(name for name, column in JobRow._meta.columns.items() if isinstance(column, JSONField))
_BOOLEAN_COLUMNS = tuple(
    name for name, column in JobRow._meta.columns.items() if isinstance(column, peewee.BooleanField)
)
_TEXT_COLUMNS = (*(item.name for item in JOB_FIELDS if item.type is str), "error")
"""Those that a client or a job may make long."""


def as_dict(row: Sequence[Any]) -> dict[str, Any]:
    """Return a row of ``COLUMNS`` as peewee's ``dicts()`` would."""
    values = dict(zip(COLUMNS, row, strict=True))
    for name in _JSON_COLUMNS:
        values[name] = JobRow._meta.fields[name].python_value(values[name])
    for name in _BOOLEAN_COLUMNS:
        values[name] = bool(values[name])
    return values


def cut_columns(max_chars: int) -> list[Any]:
    """Return what to select of a job for a list: the database cuts, so that no more is ever in memory."""
    columns: list[Any] = []
    is_cut: Any = None
    for name, column in JobRow._meta.columns.items():
        if name == "secrets":
            continue
        if name in _TEXT_COLUMNS:
            columns.append(fn.substr(column, 1, max_chars).alias(name))
        elif name in _JSON_COLUMNS:
            columns.append(peewee.Case(None, [(fn.length(column) <= max_chars, column)]).alias(name))
        else:
            columns.append(column)
            continue
        is_long = fn.coalesce(fn.length(column), 0) > max_chars
        is_cut = is_long if is_cut is None else is_cut | is_long
    return [*columns, is_cut.alias("is_cut")]
