"""The job database in a file: the one place that configures its SQLite."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import peewee
from peewee import DatabaseError, PeeweeException, SqliteDatabase

from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.lib.locks import FairLock
from reactorcide.lib.transactions import GroupCommit, reason, transaction
from reactorcide.store import schema
from reactorcide.store.connection import MIGRATIONS_DIR, JobDatabase, OpenTransaction, translated
from reactorcide.store.models.service import InstanceRow

_BUSY_TIMEOUT_MS = 5000
_CACHE_KIB = 1024
"""The page cache of a connection; each thread has one. Other pages come from the system's file cache."""
_MAX_COPIES = 3
_CHECKPOINT_PAGES = 4000
"""Of the write-ahead log, 16 MB: the same pages are written again and again, and each once a checkpoint."""

_EVENT_ID = '"job_event" ("id" INTEGER NOT NULL PRIMARY KEY'
"""Without AUTOINCREMENT, SQLite would give the id of a deleted event again."""
_SCHEMA_REST = (
    "CREATE TABLE schema_migration "
    "(id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, applied DATETIME NOT NULL)",
    "CREATE UNIQUE INDEX schema_migration_name ON schema_migration (name)",
    """
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
        SELECT RAISE(ABORT, 'the audit is only ever added to');
    END
    """,
    """
    CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit BEGIN
        SELECT RAISE(ABORT, 'the audit is only ever added to');
    END
    """,
)

T = TypeVar("T")


def copy_database(source: Path, target: Path) -> None:
    """Copy a consistent snapshot of a database, also while others write to it.

    Only its owner can read the copy. Raises ``sqlite3.Error`` or ``OSError``; then there is no copy.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(sqlite3.connect(source, timeout=5)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


class Database(JobDatabase):
    """Connections to one SQLite file: one a thread for reading, and one writer at a time.

    A transaction is durable when ``write`` returns (WAL, ``synchronous=FULL``). Writers queue behind a
    fair lock in this process, for SQLite's own busy handler serves them in no order and lets some
    wait for seconds; another process (the operator's command line) is waited for up to 5 s.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._write_lock = FairLock()
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        super().__init__(
            _TrackingDatabase(
                self._connections,
                str(path),
                pragmas={
                    "journal_mode": "wal",
                    "synchronous": "full",
                    "foreign_keys": 1,
                    "busy_timeout": _BUSY_TIMEOUT_MS,
                    "cache_size": -_CACHE_KIB,
                    "wal_autocheckpoint": _CHECKPOINT_PAGES,
                },
                check_same_thread=False,
            )
        )
        self.open_transaction = OpenTransaction(self._peewee, self._is_in_transaction)
        self._group = GroupCommit(self._write_lock, self._peewee.execute_sql)

    def migrate(self) -> list[str]:
        """Create the schema, or apply the missing migrations, and return their names; safe to repeat.

        An existing database is copied before, to ``<name>.before-<migration>``. Raises ``ConfigurationError``
        when the file is not a database of this program, or is one of a newer version of it.
        """
        try:
            tables = {name for (name,) in self._peewee.execute_sql("SELECT name FROM sqlite_master")}
            if not tables:
                return self._create()
            applied = set()
            if schema.HISTORY in tables:
                applied = {name for (name,) in self._peewee.execute_sql(f"SELECT name FROM {schema.HISTORY}")}  # noqa: S608  # a name of ours
            missing, unknown = schema.missing(applied)
            if unknown:
                raise ConfigurationError(
                    f"{self.path} was written by a newer version of Reactorcide (it has {unknown[-1]}); "
                    "run that version or a later one"
                )
            if not missing:
                return []
            # Imported late: hardly any start needs it.
            from playhouse import migrations

            if applied:
                self._keep_copy(missing[0])
            names: list[str] = migrations.Runner(self._peewee, str(MIGRATIONS_DIR)).up()
        except (DatabaseError, sqlite3.Error) as exc:
            raise ConfigurationError(f"the database {self.path} cannot be used: {reason(exc)}") from exc
        return names

    def _create(self) -> list[str]:
        """Create all tables as they are after the last migration."""
        names, _ = schema.missing(set())
        with self._write_lock, transaction(self._peewee.execute_sql) as execute:
            for statement in (*schema.statements(self._peewee), *_SCHEMA_REST):
                execute(statement.replace(_EVENT_ID, f"{_EVENT_ID} AUTOINCREMENT"))
            schema.record(self._peewee, names)
        return names

    def _keep_copy(self, migration: str) -> None:
        """Copy the database before ``migration``, and remove all but the newest few copies."""
        copy = self.path.with_name(f"{self.path.name}.before-{migration}")
        unfinished = copy.with_name(f"{copy.name}.tmp")
        try:
            # Left by an interrupted start, or a copy of an older version.
            unfinished.unlink(missing_ok=True)
            copy_database(self.path, unfinished)
            os.replace(unfinished, copy)
            copies = sorted(
                self.path.parent.glob(f"{self.path.name}.before-*"), key=lambda path: path.stat().st_mtime_ns
            )
            for old in copies[:-_MAX_COPIES]:
                old.unlink()
        except (OSError, sqlite3.Error) as exc:
            raise ConfigurationError(
                f"the database {self.path} has to be upgraded, and no copy of it can be made: {exc}"
            ) from exc

    @contextmanager
    def transaction(self) -> Iterator[OpenTransaction]:
        """Run the body as one transaction that is on disk when this returns.

        Raises ``StoreError`` if the database cannot do it; then nothing of the body has happened.
        """
        self._refuse_nesting()
        with self._write_lock, translated(), transaction(self._peewee.execute_sql):
            yield self.open_transaction

    def write(self, work: Callable[[Any], T]) -> T:
        """Run ``work`` as one transaction that is on disk when this returns; returns its result.

        The fast way to write: one of the waiting threads writes for all of them, in one transaction. So
        ``work`` may run on another thread, and twice. Raises as ``transaction``.
        """
        self._refuse_nesting()
        with translated():
            return self._group.run_transaction(lambda: work(self._peewee))

    def write_apart(self, work: Callable[[Any], T], *, is_durable: bool = True) -> T:
        """Do the same as ``write``: the file has one writer at a time."""
        return self.write(work)

    def _refuse_nesting(self) -> None:
        """Raise ``RuntimeError`` instead of a deadlock with an open transaction of this thread."""
        # This opens no connection, which could fail: a thread without a connection has no transaction.
        if self._is_in_transaction():
            raise RuntimeError("a transaction is open on this thread: write on its tx, not on the store")

    def _is_in_transaction(self) -> bool:
        return not self._peewee.is_closed() and self._peewee.connection().in_transaction

    def continue_numbers(self, last: Mapping[tuple[str, str], int]) -> None:
        """Number further rows from after these on, by table and column; part of the open transaction."""
        for (table, _), number in last.items():
            sql = "UPDATE sqlite_sequence SET seq = ? WHERE name = ? AND seq < ?"
            self.open_transaction.execute(sql, (number, table, number))

    def shrink(self) -> None:
        """Remove overwritten and deleted data from the file. Raises as ``write``."""
        execute = self._peewee.execute_sql
        with self._write_lock, translated():
            execute("VACUUM")
            execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def write_if_free(self, sql: str, values: Sequence[object]) -> bool:
        """Run one statement as a transaction; returns ``False`` if another writer is active."""
        execute = self._peewee.execute_sql
        if not self._write_lock.enter_if_free():
            return False
        try:
            execute("PRAGMA busy_timeout = 0")
            try:
                execute(sql, values)
            finally:
                execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        except (PeeweeException, sqlite3.Error) as exc:
            if "locked" in str(exc):
                return False
            raise StoreError(f"the job database could not be written: {reason(exc)}") from exc
        finally:
            self._write_lock.__exit__()
        return True

    def check(self) -> None:
        """Raise ``StoreError`` unless the database takes a write (rolled back at once)."""
        with self._write_lock, translated(), self._peewee.atomic("IMMEDIATE") as transaction:
            InstanceRow.update(instance_id=InstanceRow.instance_id).execute(self._peewee)
            transaction.rollback()

    def close(self) -> None:
        """Close the connections of all threads; safe to repeat. No query may be running."""
        self._peewee.close()
        while self._connections:
            self._connections.popitem()[1].close()


class _TrackingDatabase(SqliteDatabase):
    """Remembers each thread's connection, and closes it when the thread has ended.

    Otherwise each attempt of a job, which has a thread of its own, would leave one: files and a cache.
    """

    def __init__(
        self, connections: dict[threading.Thread, sqlite3.Connection], *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._tracked = connections

    def _connect(self) -> sqlite3.Connection:
        # For one thread at a time: peewee holds its lock.
        for thread in [thread for thread in self._tracked if not thread.is_alive()]:
            self._tracked.pop(thread).close()
        connection: sqlite3.Connection = super()._connect()  # type: ignore[misc]  # missing in the stubs
        self._tracked[threading.current_thread()] = connection
        return connection

    def rollback(self) -> None:
        """Roll back unless SQLite has already done so, as on a full disk: another error would hide the
        reason."""
        if self.connection().in_transaction:  # type: ignore[no-untyped-call]  # missing in the stubs
            super().rollback()

    def execute_sql(self, sql: str, params: Sequence[object] | None = None) -> sqlite3.Cursor:
        """Run a statement; peewee's own takes about as long as SQLite does for one that is simple."""
        connection: Any = self.connection()  # type: ignore[no-untyped-call]  # missing in the stubs
        try:
            return cast(sqlite3.Cursor, connection.execute(sql, params or ()))
        except sqlite3.Error as exc:
            raise getattr(peewee, type(exc).__name__)(*exc.args) from exc
