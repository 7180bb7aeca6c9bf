"""A job store on a real database of either kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reactorcide.store import Store
from tests.support.store import AnyDatabase, new_database, new_store


@pytest.fixture(params=["sqlite", "postgresql"])
def database(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AnyDatabase]:
    database = new_database(request.param, tmp_path / "jobs.db")
    yield database
    database.close()


@pytest.fixture
def store(database: AnyDatabase) -> Store:
    store = new_store(database)
    store.instance.id("instance")
    store.instance.open_vault()
    return store
