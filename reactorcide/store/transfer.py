"""All rows of one job database, copied to another that is empty, and compared afterwards."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from peewee import AutoField, BlobField, BooleanField, CompositeKey

from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.store import schema
from reactorcide.store.connection import Connection
from reactorcide.store.models import ALL_MODELS

_MAX_VALUES = 8000
"""Values in one INSERT: fewer than either engine allows."""
_MAX_ROWS = 500
_BATCH_BYTES = 4 << 20
"""A batch that is longer is the last of its size: rows have log pieces and definitions of jobs."""


class Table(NamedTuple):
    """A table, its columns, and those of its primary key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    converters: tuple[Callable[[Any], Any] | None, ...]
    numbered: str | None
    """The column that the database numbers."""


class Source:
    """The database file that is read, at one moment; it is not changed. Close it at the end."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises ``ConfigurationError`` unless it has exactly this version's tables."""
        self.path = path
        try:
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            # Text that is not UTF-8 cannot be stored by any version, but a file may be damaged.
            self._connection.text_factory = lambda text: text.decode(errors="replace")
            self._connection.execute("BEGIN")
            applied = {name for (name,) in self._connection.execute(f"SELECT name FROM {schema.HISTORY}")}  # noqa: S608  # a name of ours
        except sqlite3.Error as exc:
            raise ConfigurationError(f"the database {path} cannot be read: {exc}") from exc
        missing, unknown = schema.missing(applied)
        if missing or unknown:
            self.close()
            kind = "a newer" if unknown else "an older"
            raise ConfigurationError(
                f"the database {path} is of {kind} version of Reactorcide; "
                + ("use that version" if unknown else "start this version's service on it once, and stop it")
            )

    def query(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query. Raises ``StoreError``."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as exc:
            raise StoreError(f"the database {self.path} could not be read: {exc}") from exc

    def close(self) -> None:
        """Close it; safe to repeat."""
        self._connection.close()


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a source for the body."""
    with closing(Source(path)) as source:
        yield source


def owner(db: Connection) -> str | None:
    """Return the id of the installation whose rows a database has; ``None`` if it has none."""
    with db.read() as target:
        row = target.execute_sql("SELECT instance_id FROM instance").fetchone()
    return None if row is None else str(row[0])


def count(source: Source) -> int:
    """Return the number of all rows."""
    return sum(source.query(f"SELECT COUNT(*) FROM {_quoted(table.name)}")[0][0] for table in tables())  # noqa: S608  # names of ours


def copy(source: Source, db: Any, progress: Callable[[int], None]) -> dict[str, int]:
    """Copy all rows to the open transaction ``db``, whose tables are empty, and compare them.

    Returns the number of rows of each table. ``progress`` gets the number of rows done. Raises ``StoreError``
    if the copy is not the same.
    """
    counts = {}
    for table in tables():
        counts[table.name] = 0
        for rows in _batches(source, table):
            _insert(db, table, rows)
            _compare(db, table, rows)
            counts[table.name] += len(rows)
            progress(len(rows))
        number = db.execute_sql(f"SELECT COUNT(*) FROM {_quoted(table.name)}").fetchone()[0]  # noqa: S608  # names of ours
        if number != counts[table.name]:
            raise StoreError(f"the copy of {table.name} has {number} rows, and not {counts[table.name]}")
    return counts


def last_numbers(source: Source) -> dict[tuple[str, str], int]:
    """Return the last number that each numbered table has given out, by table and column."""
    given = dict(source.query("SELECT name, seq FROM sqlite_sequence")) if _has_sequences(source) else {}
    numbers = {}
    for table in tables():
        if table.numbered is not None:
            sql = f"SELECT COALESCE(MAX({_quoted(table.numbered)}), 0) FROM {_quoted(table.name)}"  # noqa: S608  # names of ours
            numbers[table.name, table.numbered] = max(source.query(sql)[0][0], given.get(table.name, 0))
    return numbers


def _has_sequences(source: Source) -> bool:
    return bool(source.query("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"))


def tables() -> Iterator[Table]:
    """Yield all tables."""
    for model in ALL_MODELS:
        meta: Any = model._meta
        key = meta.primary_key
        fields = meta.columns
        yield Table(
            meta.table_name,
            tuple(fields),
            tuple(
                meta.fields[name].column_name
                for name in (key.field_names if isinstance(key, CompositeKey) else [key.name])
            ),
            tuple(_converter(field) for field in fields.values()),
            key.column_name if isinstance(key, AutoField) else None,
        )


def _converter(field: Any) -> Callable[[Any], Any] | None:
    if isinstance(field, BooleanField):
        return bool
    return bytes if isinstance(field, BlobField) else None


def _converted(table: Table, row: Sequence[Any]) -> tuple[Any, ...]:
    """Return a row as both databases have it: SQLite has no booleans, and PostgreSQL no NUL in texts."""
    return tuple(
        value
        if value is None
        else convert(value)
        if convert is not None
        else value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        if isinstance(value, str)
        else value
        for value, convert in zip(row, table.converters, strict=True)
    )


def _batches(source: Source, table: Table) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows in the order of their key, a few at a time."""
    limit = max(1, min(_MAX_ROWS, _MAX_VALUES // len(table.columns)))
    places = [table.columns.index(name) for name in table.key]
    key = _listed(table.key)
    select = f"SELECT {_listed(table.columns)} FROM {_quoted(table.name)}"  # noqa: S608  # names of ours
    where = f" WHERE ({key}) > ({', '.join('?' * len(table.key))})"
    after: tuple[Any, ...] = ()
    while True:
        sql = f"{select}{where if after else ''} ORDER BY {key} LIMIT {limit}"
        rows = source.query(sql, after)
        if not rows:
            return
        after = tuple(rows[-1][place] for place in places)
        yield [_converted(table, row) for row in rows]
        longest = max(sum(len(value) for value in row if isinstance(value, str | bytes)) for row in rows)
        limit = max(1, min(_MAX_ROWS, _MAX_VALUES // len(table.columns), _BATCH_BYTES // max(longest, 1)))


def _insert(db: Any, table: Table, rows: list[tuple[Any, ...]]) -> None:
    places = f"({', '.join('?' * len(table.columns))})"
    sql = (
        f"INSERT INTO {_quoted(table.name)} ({_listed(table.columns)}) "  # noqa: S608  # names of ours
        f"VALUES {', '.join([places] * len(rows))}"
    )
    db.execute_sql(sql, tuple(chain.from_iterable(rows)))


def _compare(db: Any, table: Table, rows: list[tuple[Any, ...]]) -> None:
    """Raise ``StoreError`` unless the target has these rows, which follow each other in the key's order."""
    places = [table.columns.index(name) for name in table.key]
    key = _listed(table.key)
    marks = ", ".join("?" * len(table.key))
    sql = (
        f"SELECT {_listed(table.columns)} FROM {_quoted(table.name)} "  # noqa: S608  # names of ours
        f"WHERE ({key}) >= ({marks}) AND ({key}) <= ({marks}) ORDER BY {key}"
    )
    bounds = [rows[number][place] for number in (0, -1) for place in places]
    copied = [_converted(table, row) for row in db.execute_sql(sql, bounds).fetchall()]
    if copied != rows:
        raise StoreError(f"the copy of {table.name} differs from {rows[0][places[0]]!r} on")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(_quoted(name) for name in names)


def _quoted(name: str) -> str:
    return f'"{name}"'
