"""A job store on a separate database for each test."""

from reactorcide.store import Store
from reactorcide.store.database import Database
from reactorcide.store.vault import Vault


def new_store(database: Database) -> Store:
    """Return a store whose key lies beside its database."""
    return Store(database, Vault.beside(database.path))
