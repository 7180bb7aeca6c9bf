"""``reactorcide secret rekey``: the key is renewed, whatever kills it half-way."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from peewee import BlobField

from reactorcide.domain.errors import ConfigurationError
from reactorcide.store import Store
from reactorcide.store.database import Database
from reactorcide.store.models import ALL_MODELS
from reactorcide.store.reseal import SEALED
from tests.cli.conftest import Program, Service
from tests.store.test_jobs import add
from tests.support.store import new_store

VALUE = "open sesame"
POINTS = ("rekey-key-created", "rekey-written", "rekey-committed")
_NOT_ENCRYPTED = {
    "secret_key_sha256",
    "token_sha256",
    "invitation_sha256",
    "body_mac",
    "session_sha256",
    "registration_sha256",
    "secret_sha256",
    "end_sha256",
    "data",
}


def opened(data_dir: Path) -> tuple[Database, Store]:
    """Return the store of a data directory, whose key is open."""
    database = Database(data_dir / "reactorcide.db")
    store = new_store(database)
    store.instance.open_vault()
    return database, store


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with jobs that have secrets, more than are encrypted at once."""
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    database = Database(directory / "reactorcide.db")
    database.migrate()
    store = new_store(database)
    store.instance.id("instance")
    store.instance.open_vault()
    for _ in range(250):
        add(store, job_env_vars={"TOKEN": VALUE}, secret_env_vars=("TOKEN",))
    database.close()
    return directory


def values(data_dir: Path) -> set[str]:
    """Return the secrets of all jobs as a start reads them."""
    database, store = opened(data_dir)
    try:
        with closing(sqlite3.connect(database.path)) as connection:
            job_ids = [job_id for (job_id,) in connection.execute("SELECT job_id FROM job")]
        assert len(job_ids) == 250
        return {store.jobs.get(job_id).definition.job_env_vars["TOKEN"] for job_id in job_ids}
    finally:
        database.close()


def test_rekey_encrypts_everything_with_the_new_key(lone: Program, data_dir: Path) -> None:
    old = (data_dir / "secret-key").read_bytes()
    assert lone.fine("secret", "rekey").text == "250 values are encrypted with a new key"
    assert (data_dir / "secret-key").read_bytes() != old
    assert (data_dir / "secret-key").stat().st_mode & 0o777 == 0o600
    assert values(data_dir) == {VALUE}
    assert not (data_dir / "secret-key.next").exists()
    (data_dir / "secret-key").write_bytes(old)
    with pytest.raises(ConfigurationError, match="is another one"):
        opened(data_dir)


@pytest.mark.parametrize("point", POINTS)
def test_killed_rekey_leaves_everything_readable_and_can_be_repeated(
    lone: Program, data_dir: Path, tmp_path: Path, point: str
) -> None:
    marker = tmp_path / "marker"
    for _ in range(2):
        marker.touch()
        killed = lone.with_variables(REACTORCIDE_CRASH_AT=f"{point}={marker}")("secret", "rekey")
        assert (killed.code, marker.exists()) == (-9, False)
    assert values(data_dir) == {VALUE}
    assert not (data_dir / "secret-key.next").exists()
    lone.fine("secret", "rekey")
    assert values(data_dir) == {VALUE}


def test_backup_during_an_interrupted_rekey_is_refused(lone: Program, data_dir: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    lone.with_variables(REACTORCIDE_CRASH_AT=f"rekey-committed={marker}")("secret", "rekey")
    assert "its renewal is not over" in lone.refused("backup", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    assert values(data_dir) == {VALUE}
    lone.fine("backup", tmp_path / "backup")


def test_rekey_is_refused_while_a_service_runs(reactorcide: Program, service: Service) -> None:
    before = (service.data_dir / "secret-key").read_bytes()
    assert "secret-key" not in reactorcide.refused("secret", "rekey")
    assert (service.data_dir / "secret-key").read_bytes() == before


def test_rekey_covers_every_encrypted_column() -> None:
    columns = {
        (model._meta.table_name, name)
        for model in ALL_MODELS
        for name, column in model._meta.columns.items()
        if isinstance(column, BlobField) and name not in _NOT_ENCRYPTED
    }
    assert {(sealed.table, sealed.column) for sealed in SEALED} == columns
