"""A job store on a separate database for each test."""

from reactorcide.store import Store
from reactorcide.store.database import Database
from reactorcide.store.vault import Vault


def database_of(store: Store) -> Database:
    """Return the database of a store, which is a file."""
    database = store._database
    assert isinstance(database, Database)
    return database


def new_store(database: Database) -> Store:
    """Return a store whose key lies beside its database."""
    return Store(database, Vault.beside(database.path))
