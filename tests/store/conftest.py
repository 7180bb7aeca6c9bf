"""A job store on a real file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reactorcide.store.database import Database
from reactorcide.store.jobs import JobStore


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "jobs.db")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> JobStore:
    store = JobStore(database)
    store.instance_id("instance")
    store.open_vault()
    return store
