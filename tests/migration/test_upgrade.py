"""Databases of earlier versions (the first: of a development version), as dumps: upgraded and read.

A release adds the dump of its own last migration here, and never touches an older one.
"""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from reactorcide.accounts import AccountContext, users
from reactorcide.domain.errors import ConfigurationError
from reactorcide.domain.jobs import JobFilter, JobStatus
from reactorcide.store.database import Database
from tests.conftest import NewService
from tests.store.test_database import schema
from tests.support.store import new_store

DUMPS = sorted(Path(__file__).parent.glob("*.sql"))
TOKEN = "a-token-of-the-first-schema"
STATUSES = {
    "completed": JobStatus.COMPLETED,
    "failed twice": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
    "waiting": JobStatus.QUEUED,
}


@pytest.fixture(params=DUMPS, ids=lambda dump: dump.stem)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data directory's database, of an older schema."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    path = data_dir / "reactorcide.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(request.param.read_text(encoding="utf-8"))
    return path


def rows(path: Path) -> dict[str, int]:
    """Return how many rows each table has."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]  # noqa: S608  # its own name
            for table in schema(path)
        }


def test_upgraded_database_has_the_new_schema_and_its_rows(old: Path, tmp_path: Path) -> None:
    before = rows(old)
    assert all(before.values())
    database, fresh = Database(old), Database(tmp_path / "fresh.db")
    assert database.migrate() != []
    assert database.migrate() == []
    fresh.migrate()
    for opened in (database, fresh):
        opened.close()
    assert schema(old) == schema(tmp_path / "fresh.db")
    assert {table: count for table, count in rows(old).items() if table in before} == before


def test_stores_read_an_upgraded_database(old: Path) -> None:
    database = Database(old)
    database.migrate()
    store = new_store(database)
    accounts = AccountContext(store)
    jobs, total = store.lists.page(JobFilter(), limit=10, offset=0, after=None)
    assert total == len(jobs) == len(STATUSES)
    assert {job.definition.name: job.status for job in jobs} == STATUSES
    assert [user.username for user in users.all_users(accounts)] == ["admin", "ann"]
    assert store.instance.id("another") != "another"
    database.close()


def test_service_runs_on_an_upgraded_database(old: Path, new_service: NewService) -> None:
    (old.parent / "admin-token").write_text(TOKEN)
    api = new_service(data_dir=old.parent, concurrency=0).admin
    jobs = {job["name"]: job for job in api.get("jobs")["jobs"]}
    statuses = {name: job["status"] for name, job in jobs.items()}
    # Its task is not in the queue's new database, so it is submitted again, at some moment after the start.
    assert statuses.pop("waiting") in (JobStatus.QUEUED, JobStatus.SUBMITTED)
    assert statuses == {name: status for name, status in STATUSES.items() if name != "waiting"}
    completed = jobs["completed"]
    assert (completed["description"], completed["cpu_limit"]) == ("déjà vu", 0.5)
    assert completed["job_env_vars"]["PLAIN"] == "1"
    assert (jobs["waiting"]["git_ref"], jobs["waiting"]["git_submodules"]) == ("main", False)
    assert (jobs["waiting"]["git_depth"], jobs["waiting"]["git_tags"]) == (1, False)
    attempts = api.get(f"jobs/{jobs['failed twice']['job_id']}/attempts")["attempts"]
    assert [item["exit_code"] for item in attempts] == [3, 3]
    assert api.get("users/me")["username"] == "ann"
    assert [token["name"] for token in api.get("tokens")["tokens"]] == ["old"]
    assert api.cancel(jobs["waiting"])["status"] == "cancelled"
    rerun = api.request("POST", f"jobs/{completed['job_id']}/rerun")
    assert rerun.status_code == 201, json.dumps(rerun.json())


class TestCopies:
    """Before an upgrade the database is copied."""

    def test_copy_before_an_upgrade_is_the_old_database(self, old: Path) -> None:
        before, count = schema(old), rows(old)
        database = Database(old)
        first = database.migrate()[0]
        database.close()
        copy = old.with_name(f"reactorcide.db.before-{first}")
        assert (schema(copy), rows(copy)) == (before, count)
        assert copy.stat().st_mode & 0o077 == 0
        assert {path.name for path in old.parent.glob("reactorcide.db*")} == {old.name, copy.name}

    def test_only_the_newest_copies_are_retained(self, old: Path) -> None:
        for number in range(5):
            copy = old.with_name(f"reactorcide.db.before-000{number}_x")
            copy.touch()
            os.utime(copy, (number, number))
        database = Database(old)
        first = database.migrate()[0]
        database.close()
        names = sorted(path.name.partition(".before-")[2] for path in old.parent.glob("*.before-*"))
        assert names == sorted(["0003_x", "0004_x", first])

    def test_upgrade_is_refused_if_the_copy_fails(self, old: Path) -> None:
        database = Database(old)
        before = schema(old)
        (old.with_name("reactorcide.db.before-0002_job_events.tmp") / "in the way").mkdir(parents=True)
        with pytest.raises(ConfigurationError, match="no copy of it can be made"):
            database.migrate()
        database.close()
        assert schema(old) == before

    def test_new_database_is_not_copied(self, tmp_path: Path) -> None:
        database = Database(tmp_path / "new.db")
        database.migrate()
        database.close()
        assert list(tmp_path.glob("*.before-*")) == []
