"""A job store on a real file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reactorcide.store import Store
from reactorcide.store.database import Database
from tests.support.store import new_store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "jobs.db")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    store = new_store(database)
    store.instance.id("instance")
    store.instance.open_vault()
    return store
