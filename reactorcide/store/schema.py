"""The schema of a new database: its tables and indexes by the models, and its history of migrations.

A new database is created as it is after all migrations, on either engine. An older one is migrated; tests
compare the two, and SQLite's with PostgreSQL's.
"""

import time
from collections.abc import Iterator
from typing import Any

from peewee import SchemaManager

from reactorcide.store.connection import migration_names
from reactorcide.store.models import ALL_MODELS

HISTORY = "schema_migration"
"""The table of the migrations that were applied, as ``playhouse.migrations`` has it."""
_ADD_TO_HISTORY = "INSERT INTO schema_migration (name, applied) VALUES (?, ?)"


def statements(db: Any) -> Iterator[str]:
    """Yield the statements that create all tables and indexes, as ``db`` writes them."""
    for model in ALL_MODELS:
        manager: Any = SchemaManager(model, db)
        yield _text(manager._create_table(safe=False))
        for index in manager._create_indexes(safe=False):
            yield _text(index)


def _text(context: Any) -> str:
    sql, values = context.query()
    if values:
        raise RuntimeError(f"the schema has values, which only a query can have: {sql}")
    return str(sql)


def record(db: Any, names: list[str]) -> None:
    """Add migrations to the history."""
    for name in names:
        db.execute_sql(_ADD_TO_HISTORY, (name, time.strftime("%Y-%m-%d %H:%M:%S")))


def missing(applied: set[str]) -> tuple[list[str], list[str]]:
    """Return the migrations that are not applied yet, in order, and the applied ones that are not known."""
    names = migration_names()
    return [name for name in names if name not in applied], sorted(applied.difference(names))
