"""A job store on a separate database for each test."""

import os
from pathlib import Path

import pytest

from reactorcide.store import Store
from reactorcide.store.database import Database
from reactorcide.store.postgresql import PostgreSQLDatabase
from reactorcide.store.vault import Vault
from tests.support.postgresql import PostgreSQL, cluster

AnyDatabase = Database | PostgreSQL
sqlite_only = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""Marks a test of what only SQLite has: its plans, its file, its earlier versions."""


def database_of(store: Store) -> AnyDatabase:
    """Return the database of a store."""
    database = store._database
    assert isinstance(database, Database | PostgreSQL)
    return database


def new_database(engine: str, path: Path) -> AnyDatabase:
    """Return a new database: the file ``path``, or one of PostgreSQL, whose key is beside that."""
    if engine == "postgresql":
        return cluster().database(path)
    database = Database(path)
    database.migrate()
    return database


def chosen_database(path: Path) -> AnyDatabase:
    """Return a new database of the engine that ``REACTORCIDE_TEST_DATABASE`` names: SQLite by default."""
    return new_database(os.environ.get("REACTORCIDE_TEST_DATABASE", "sqlite"), path)


def opened_again(database: AnyDatabase) -> Database | PostgreSQLDatabase:
    """Return other connections to a database, with a writers' lock of their own, as another process has."""
    return Database(database.path) if isinstance(database, Database) else PostgreSQLDatabase(database.url)


def new_store(database: AnyDatabase) -> Store:
    """Return a store whose key lies beside its database."""
    return Store(database, Vault.beside(database.path))
