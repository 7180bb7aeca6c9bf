"""Taking a data directory over to other places: its rows and objects, interrupted or refused."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee
import pytest

from reactorcide import migrate_data
from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.domain.jobs import JobStatus, log_index_key, log_key
from reactorcide.jobs.place import MARKER
from reactorcide.logs.local import LocalLogStore
from reactorcide.logs.rows import RowLogStore
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.objects.memory import MemoryObjectStore
from reactorcide.settings import Settings
from reactorcide.store import transfer
from reactorcide.store.connection import JobDatabase
from reactorcide.store.database import Database
from reactorcide.store.log_pieces import LogPieces
from reactorcide.store.models import ALL_MODELS
from reactorcide.store.models.fields import JSONField
from tests.support.store import AnyDatabase, new_database, new_store

INSTANCE = "instance-1"
URL = "s3://bucket/ci"
OBJECTS = {
    "jobs/job-0/1/log": b"x" * 300_000,
    "sources/1": b"source",
    "caches/1/tar": b"",
    "deliveries/1/body": b"b",
}
EMPTY = ("instance", "log_file", "log_piece")
ROWS = 1203


def nothing(label: str, done: int, total: int) -> None:
    """Show no progress."""


def value(field: Any, number: int) -> Any:
    """Return a value for a column, another one for each number."""
    if isinstance(field, peewee.BooleanField):
        return number % 2
    if isinstance(field, JSONField):
        return f'{{"{number}": ""}}'
    if isinstance(field, peewee.BlobField):
        return b"\0\xff%d" % number
    if isinstance(field, peewee.IntegerField | peewee.FloatField):
        return number
    return f"é\0%d-{number}" if field.name == "error" else f"{field.name}-{number}"


def fill(path: Path) -> None:
    """Insert rows into every table, more than a batch of them into that of the jobs."""
    with closing(sqlite3.connect(path)) as connection:
        for model in ALL_MODELS:
            meta: Any = model._meta
            if meta.table_name in EMPTY:
                continue
            sql = (
                f'INSERT INTO "{meta.table_name}" ({", ".join(meta.columns)}) '  # noqa: S608  # names of ours
                f"VALUES ({', '.join('?' * len(meta.columns))})"
            )
            for number in range(ROWS if meta.table_name == "job" else 3):
                connection.execute(sql, [value(field, number + 1) for field in meta.columns.values()])
        connection.execute("UPDATE job SET status = 'completed'")
        connection.execute("UPDATE job SET status = 'queued' WHERE cpu_limit < 3")
        connection.execute("DELETE FROM job_event WHERE id = 3")
        connection.commit()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A data directory with something of everything."""
    settings = Settings(data_dir=tmp_path / "data")
    settings.data_dir.mkdir()
    database = Database(settings.database_path)
    database.migrate()
    store = new_store(database)
    store.instance.id(INSTANCE)
    store.instance.open_vault()
    database.close()
    objects = FilesystemObjectStore(settings.objects_dir)
    for key, content in OBJECTS.items():
        objects.put(key, [content])
    logs = LocalLogStore(settings.logs_dir, objects)
    for key in (log_key("job-2", 1), log_index_key("job-2", 1)):
        file = logs.append(key)
        file.write(key.encode() * 50_000)
        file.close()
    return settings


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyDatabase]:
    with closing(new_database(request.param, tmp_path / "target.db")) as database:
        yield database


def rows(database: JobDatabase) -> dict[str, list[Any]]:
    """Return all rows of all tables, in the order of their keys."""
    found = {}
    for table in transfer.tables():
        columns, key = (", ".join(f'"{name}"' for name in names) for names in (table.columns, table.key))
        sql = f'SELECT {columns} FROM "{table.name}" ORDER BY {key}'  # noqa: S608  # names of ours
        with database.read() as db:
            found[table.name] = [tuple(row) for row in db.execute_sql(sql).fetchall()]
    return found


def source_rows(settings: Settings) -> dict[str, list[Any]]:
    with closing(Database(settings.database_path)) as database:
        return rows(database)


def files(directory: Path) -> dict[str, bytes]:
    """Return all files but those that SQLite keeps beside a database that is open or was."""
    return {
        str(path): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


class TestRows:
    """The rows of the database."""

    def test_every_row_is_copied_and_the_source_is_not_changed(
        self, settings: Settings, target: Database
    ) -> None:
        fill(settings.database_path)
        expected = source_rows(settings)
        before = files(settings.data_dir)
        result = migrate_data.migrate(settings, target, None, nothing)
        assert files(settings.data_dir) == before
        copied = rows(target)
        jobs, old_jobs = copied.pop("job"), expected.pop("job")
        # They are submitted again, which is an event.
        assert len(jobs) == len(old_jobs) == ROWS
        events, old_events = copied.pop("job_event"), expected.pop("job_event")
        assert events[: len(old_events)] == old_events
        # The number of a removed event is not given out again.
        assert min(event[0] for event in events[len(old_events) :]) == 4
        total = sum(map(len, expected.values())) + ROWS + len(old_events)
        assert result.rows == total
        # The logs are read below, and the counts are those of the jobs as they are now.
        for name in (*EMPTY[1:], "job_count"):
            copied.pop(name)
            expected.pop(name)
        nul, replacement = "\0", "\N{REPLACEMENT CHARACTER}"
        assert copied == {
            name: [
                tuple(item.replace(nul, replacement) if isinstance(item, str) else item for item in row)
                for row in table
            ]
            for name, table in expected.items()
        }

    def test_queued_jobs_are_to_be_submitted_again(self, settings: Settings, target: AnyDatabase) -> None:
        fill(settings.database_path)
        migrate_data.migrate(settings, target, None, nothing)
        with target.read() as db:
            sql = "SELECT status, corndogs_task_id, next_submit_at_ms FROM job WHERE status <> 'completed'"
            assert set(db.execute_sql(sql).fetchall()) == {(JobStatus.SUBMITTED, None, 0)}

    def test_logs_that_are_not_sealed_become_rows(self, settings: Settings, target: AnyDatabase) -> None:
        assert migrate_data.migrate(settings, target, None, nothing).logs == 2
        logs = RowLogStore(LogPieces(target), MemoryObjectStore())
        for key in (log_key("job-2", 1), log_index_key("job-2", 1)):
            assert b"".join(logs.read(key)) == key.encode() * 50_000

    def test_an_interrupted_copy_is_repeated(
        self, settings: Settings, target: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(settings.database_path)

        def interrupt(label: str, done: int, total: int) -> None:
            if done > ROWS:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            migrate_data.migrate(settings, target, None, interrupt)
        assert not any(rows(target).values())
        assert migrate_data.migrate(settings, target, None, nothing).rows is not None
        # Once more changes nothing: the service may have gone on there.
        before = rows(target)
        assert migrate_data.migrate(settings, target, None, nothing).rows is None
        assert rows(target) == before

    def test_a_copy_that_differs_is_not_committed(
        self, settings: Settings, target: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(settings.database_path)
        insert = transfer._insert

        def changed(db: Any, table: Any, batch: Any) -> None:
            insert(db, table, batch)
            if table.name == "project":
                db.execute_sql("UPDATE project SET name = 'x' WHERE project_id = 'project_id-2'")

        monkeypatch.setattr(transfer, "_insert", changed)
        with pytest.raises(StoreError, match="the copy of project differs"):
            migrate_data.migrate(settings, target, None, nothing)
        assert not any(rows(target).values())

    def test_a_database_of_another_installation_is_refused(
        self, settings: Settings, target: Database
    ) -> None:
        target.migrate()
        new_store(target).instance.id("another")
        with pytest.raises(ConfigurationError, match="of another installation"):
            migrate_data.migrate(settings, target, None, nothing)

    def test_running_jobs_are_refused(self, settings: Settings, target: AnyDatabase) -> None:
        fill(settings.database_path)
        with closing(sqlite3.connect(settings.database_path)) as connection:
            connection.execute("UPDATE job SET status = 'running' WHERE cpu_limit = 7")
            connection.commit()
        with pytest.raises(ConfigurationError, match="1 jobs have not ended"):
            migrate_data.migrate(settings, target, None, nothing)

    def test_an_older_database_is_refused(self, settings: Settings, target: AnyDatabase) -> None:
        with closing(sqlite3.connect(settings.database_path)) as connection:
            connection.execute("DELETE FROM schema_migration WHERE name LIKE '0037%'")
            connection.commit()
        with pytest.raises(ConfigurationError, match="an older version"):
            migrate_data.migrate(settings, target, None, nothing)


class TestObjects:
    """The objects."""

    def test_all_are_copied_and_the_bucket_is_marked(self, settings: Settings) -> None:
        (settings.objects_dir / ".tmp" / "half").write_bytes(b"half")
        bucket, before = MemoryObjectStore(), files(settings.data_dir)
        result = migrate_data.migrate(settings, None, (URL, bucket), nothing)
        assert (result.objects, result.object_bytes) == (4, sum(map(len, OBJECTS.values())))
        assert contents(bucket) == OBJECTS | {MARKER: INSTANCE.encode()}
        assert files(settings.data_dir) == before
        assert migrate_data.migrate(settings, None, (URL, bucket), nothing).objects == 0

    def test_an_interrupted_copy_is_no_place_for_a_service_and_goes_on(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket = MemoryObjectStore()
        stored: list[str] = []

        def put(key: str, chunks: Iterable[bytes]) -> int:
            if len(stored) == 3:
                raise KeyboardInterrupt
            stored.append(key)
            return MemoryObjectStore.put(bucket, key, chunks)

        with monkeypatch.context() as patch:
            patch.setattr(bucket, "put", put)
            with pytest.raises(KeyboardInterrupt):
                migrate_data.migrate(settings, None, (URL, bucket), nothing)
        assert MARKER not in contents(bucket)
        # Half of an object of the same size, as no store leaves it behind.
        bucket.put("sources/1", [b"sour__"])
        migrate_data.migrate(settings, None, (URL, bucket), nothing)
        assert contents(bucket) == OBJECTS | {MARKER: INSTANCE.encode()}

    @pytest.mark.parametrize("key", [MARKER, "migration/of"])
    def test_a_bucket_of_another_installation_is_refused(self, settings: Settings, key: str) -> None:
        bucket = MemoryObjectStore()
        bucket.put(key, [b"another"])
        with pytest.raises(ConfigurationError, match="another installation"):
            migrate_data.migrate(settings, None, (URL, bucket), nothing)
        assert contents(bucket) == {key: b"another"}

    def test_objects_that_are_in_another_bucket_are_refused(self, settings: Settings) -> None:
        database = Database(settings.database_path)
        new_store(database).instance.save_objects_url("s3://other")
        database.close()
        with pytest.raises(ConfigurationError, match="are in s3://other"):
            migrate_data.migrate(settings, None, (URL, MemoryObjectStore()), nothing)

    def test_the_new_database_has_the_bucket(self, settings: Settings, target: AnyDatabase) -> None:
        migrate_data.migrate(settings, target, (URL, MemoryObjectStore()), nothing)
        assert new_store(target).instance.objects_url() == URL


def contents(bucket: MemoryObjectStore) -> dict[str, bytes]:
    return {key: b"".join(bucket.read(key)) for key in bucket._objects}


def test_a_directory_without_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no database"):
        migrate_data.check(Settings(data_dir=tmp_path))
