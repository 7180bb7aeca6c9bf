"""A job's row: its columns as SQL, and the shortened columns of a list.

Statements that run for every job are written as SQL, because peewee takes several times as long to build them
as SQLite to run them.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import peewee

from reactorcide.domain.definition import JOB_FIELDS
from reactorcide.store.models.fields import JSONField
from reactorcide.store.models.jobs import JobRow

COLUMNS = tuple(name for name in JobRow._meta.columns if name not in ("outputs", "tests"))
COLUMN_LIST = ", ".join(COLUMNS)
_JSON_COLUMNS = tuple(name for name, column in JobRow._meta.columns.items() if isinstance(column, JSONField))
_BOOLEAN_COLUMNS = tuple(
    name for name, column in JobRow._meta.columns.items() if isinstance(column, peewee.BooleanField)
)
_TEXT_COLUMNS = (*(item.name for item in JOB_FIELDS if item.type is str), "error")
"""Columns that a client or a job can make long."""


_CUT_COLUMNS = (*(name for name in COLUMNS if name != "secrets"), "is_cut")


def as_dict(row: Sequence[Any]) -> dict[str, Any]:
    """Return a row of ``COLUMNS`` by name, with Python values."""
    return _converted(dict(zip(COLUMNS, row, strict=True)))


@lru_cache(maxsize=64)
def cut_list(max_chars: int) -> str:
    """Return the SELECT columns of a job for a list; the database cuts long values, to save memory."""
    columns, is_long = [], []
    for name in _CUT_COLUMNS[:-1]:
        length = f"COALESCE(length({name}), 0) > {max_chars:d}"
        if name in _TEXT_COLUMNS:
            columns.append(f"substr({name}, 1, {max_chars:d})")
            is_long.append(length)
        elif name in _JSON_COLUMNS:
            columns.append(f"CASE WHEN {length} THEN NULL ELSE {name} END")
            is_long.append(length)
        else:
            columns.append(name)
    return f"{', '.join(columns)}, CASE WHEN {' OR '.join(is_long)} THEN 1 ELSE 0 END"


def as_cut_dict(row: Sequence[Any]) -> dict[str, Any]:
    """Return a row of ``cut_list`` by name, as ``as_dict`` does; ``is_cut`` tells whether anything is cut."""
    values = dict(zip(_CUT_COLUMNS, row, strict=True))
    values["is_cut"] = bool(values["is_cut"])
    values["job_env_vars"] = values["job_env_vars"] or "{}"
    # Secrets are redacted in the other columns.
    values["secrets"] = None
    return _converted(values)


def _converted(values: dict[str, Any]) -> dict[str, Any]:
    for name in _JSON_COLUMNS:
        text = values[name]
        values[name] = None if text is None else json.loads(text)
    for name in _BOOLEAN_COLUMNS:
        values[name] = bool(values[name])
    return values
