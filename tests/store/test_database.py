"""The database file: its schema, its refusals, its errors."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peewee import IntegrityError, SqliteDatabase
from playhouse import migrations

from reactorcide import store
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.domain.jobs import Job, JobFilter, JobStatus
from reactorcide.lib.ids import new_id
from reactorcide.store.connection import MIGRATIONS_DIR
from reactorcide.store.database import Database
from reactorcide.store.models.service import InstanceRow
from tests.support.descriptors import few_descriptors
from tests.support.store import new_store

MIGRATIONS = Path(store.__file__).parent / "migrations"


def schema(path: Path) -> dict[str, object]:
    """Return columns and indexes of every table, as SQLite itself shows them."""
    connection = sqlite3.connect(path)
    try:
        texts = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if name not in ("schema_migration", "sqlite_sequence")
        ]
        return {
            table: (
                "WITHOUT ROWID" in texts[table],
                # Not the columns' places: a migration puts one at the end, and every statement names them.
                sorted(column[1:] for column in connection.execute(f"PRAGMA table_info({table})")),
                sorted(
                    (
                        name,
                        unique,
                        [column for _, _, column in connection.execute(f"PRAGMA index_info({name})")],
                        # Which rows it has, if not all.
                        texts.get(name, "").partition(" WHERE ")[2].strip(),
                    )
                    for _, name, unique, *_ in connection.execute(f"PRAGMA index_list({table})")
                ),
            )
            for table in tables
        }
    finally:
        connection.close()


def first_schema(path: Path, directory: Path) -> None:
    """Create the database of the first version."""
    directory.mkdir()
    shutil.copy(MIGRATIONS / "0001_jobs.py", directory)
    old: Any = SqliteDatabase(str(path))
    migrations.Runner(old, str(directory)).up()
    old.close()


def test_a_migrated_database_has_the_schema_of_a_new_one(tmp_path: Path) -> None:
    first_schema(tmp_path / "migrated.db", tmp_path / "first")
    migrated, fresh = Database(tmp_path / "migrated.db"), Database(tmp_path / "fresh.db")
    assert migrated.migrate() == fresh.migrate()[1:]
    for database in (migrated, fresh):
        assert database.migrate() == []
        database.close()
    assert schema(tmp_path / "migrated.db") == schema(tmp_path / "fresh.db")
    assert triggers(tmp_path / "migrated.db") == triggers(tmp_path / "fresh.db")
    assert history(tmp_path / "migrated.db") == history(tmp_path / "fresh.db")


def triggers(path: Path) -> list[object]:
    """Return the triggers, and the tables whose ids are never given again."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        texts = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name")
        tables = connection.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
        return [*((name, sql.split()) for name, sql in texts), *tables]


def history(path: Path) -> list[object]:
    """Return the migrations that playhouse takes for applied."""
    opened: Any = SqliteDatabase(str(path))
    runner = migrations.Runner(opened, str(MIGRATIONS_DIR))
    entries = [(entry.name, type(entry.applied)) for entry in runner.status()]
    columns = opened.execute_sql("PRAGMA table_info(schema_migration)").fetchall()
    opened.close()
    return [entries, columns]


def test_a_database_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    first_schema(tmp_path / "x.db", tmp_path / "first")
    database = Database(tmp_path / "x.db")
    assert database.migrate()[0] == "0002_job_events"

    store = new_store(database)
    definition = JobDefinition(name="n", job_command="true", source_type="copy", runner_image="i")
    job = Job(
        job_id=new_id(),
        user_id="ann",
        definition=definition,
        status=JobStatus.SUBMITTED,
        created_at_ms=1,
        updated_at_ms=1,
    )
    store.jobs.add(job, next_submit_at_ms=0)
    store.jobs.transition(job.job_id, JobStatus.QUEUED, now_ms=2, only_from={JobStatus.SUBMITTED})
    with database.read() as db:
        events = db.execute_sql("SELECT status_from, status_to FROM job_event ORDER BY id").fetchall()
    assert events == [(None, "submitted"), ("submitted", "queued")]
    database.close()


def test_a_job_of_the_first_schema_is_read_after_the_migrations(tmp_path: Path) -> None:
    first_schema(tmp_path / "x.db", tmp_path / "first")
    old: Any = SqliteDatabase(str(tmp_path / "x.db"))
    fields = {"job_id": "j", "status": "completed", "source_type": "copy", "job_env_vars": "{}"}
    # What else has to have a value gets an empty one of its type.
    columns = old.execute_sql("PRAGMA table_info(job)").fetchall()
    values = {name: "" if kind == "TEXT" else 0 for _, name, kind, needed, *_ in columns if needed} | fields
    old.execute_sql(
        f"INSERT INTO job ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",  # noqa: S608  # of our own
        tuple(values.values()),
    )
    old.close()
    database = Database(tmp_path / "x.db")
    database.migrate()
    (job,), _ = new_store(database).lists.page(JobFilter(), limit=10)
    assert job == new_store(database).jobs.get("j")
    definition = job.definition
    assert (definition.artifacts, definition.source_id, definition.source_job_id) == (None, None, None)
    assert definition.git_submodules is False
    assert (definition.git_depth, definition.git_tags) == (1, False)
    database.close()


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    database.migrate()
    with database.transaction() as tx:
        tx.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_future', '')")
    with pytest.raises(ConfigurationError, match="newer version"):
        database.migrate()
    database.close()


def test_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database at all" * 100)
    database = Database(tmp_path / "x.db")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        database.migrate()
    database.close()


def test_every_connection_is_durable_has_foreign_keys_and_a_small_cache(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    database.migrate()
    settings: list[object] = []

    def ask() -> None:
        with database.read() as db:
            settings.extend(
                db.execute_sql(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "cache_size")
            )

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    database.close()
    assert settings == ["wal", 2, 1, 5000, -1024]


def test_failed_transaction_is_rolled_back(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    database.migrate()

    def write_and_fail() -> None:
        with database.transaction() as tx:
            tx.write(InstanceRow.insert(instance_id="x").execute)
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()
    assert new_store(database).instance.id("y") == "y"
    database.close()


def test_locked_database_is_a_clear_error(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    database.migrate()
    with database.read() as db:
        db.execute_sql("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "x.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        new_store(database).instance.id("x")
    with pytest.raises(StoreError, match="locked"):
        database.check()
    other.rollback()
    other.close()
    database.check()
    assert new_store(database).instance.id("x") == "x"
    database.close()


def test_ended_thread_leaves_no_connection(tmp_path: Path) -> None:
    database = Database(tmp_path / "jobs.db")
    database.migrate()

    def open_files() -> int:
        links = (os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
        return sum(link.startswith(str(tmp_path)) for link in links)

    before = open_files()
    for _ in range(20):
        thread = threading.Thread(target=new_store(database).jobs.find, args=("none",))
        thread.start()
        thread.join()
    # The last one's is closed with the next.
    assert open_files() <= before + 2
    database.close()
    assert open_files() == 0


def test_instance_id_is_created_once(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    database.migrate()
    first = new_store(database).instance.id(new_id())
    assert new_store(database).instance.id(new_id()) == first
    database.close()


def test_a_rollback_by_sqlite_itself_does_not_hide_the_reason(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    database.migrate()
    with database.transaction() as tx:
        tx.execute(
            "CREATE TRIGGER full BEFORE INSERT ON instance "
            "BEGIN SELECT RAISE(ROLLBACK, 'disk I/O error'); END"
        )
    with pytest.raises((StoreError, IntegrityError), match="disk I/O error"):
        new_store(database).instance.id("x")
    with database.transaction() as tx:
        tx.execute("DROP TRIGGER full")
    assert new_store(database).instance.id("x") == "x"
    database.close()


def test_failed_connection_is_a_store_error(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    database.migrate()
    errors: list[BaseException] = []

    def read() -> None:
        with database.read() as db:
            db.execute_sql("SELECT 1")

    def begin() -> None:
        with database.transaction():
            pass

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as exc:
            errors.append(exc)

    for call in (read, begin, lambda: database.write(lambda db: None), database.check):
        thread = threading.Thread(target=run, args=[call])
        with few_descriptors(0):
            thread.start()
            thread.join()
    assert [type(error) for error in errors] == [StoreError] * 4
    assert all("unable to open database file" in str(error) for error in errors)
    database.close()


def test_drivers_of_other_databases_are_not_loaded() -> None:
    code = (
        "import sys, reactorcide.app.service, reactorcide.corndogs.storage; "
        "assert 'peewee' in sys.modules; print([name for name in sys.modules if 'psycopg' in name]); "
        "import psycopg"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
