"""The storage of the embedded server: one SQLite file with the live tasks and an archive of a week."""

import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from peewee import PeeweeException, SqliteDatabase

from reactorcide.corndogs.task import Task
from reactorcide.domain.errors import ConfigurationError, CorndogsError
from reactorcide.lib import no_drivers  # noqa: F401  # before peewee is imported
from reactorcide.lib.locks import FairLock
from reactorcide.lib.transactions import Execute, GroupCommit, reason, transaction

# Marks the file's header with "Corn", so that another program's file is recognised.
_APPLICATION_ID = int.from_bytes(b"Corn", "big")
_SCHEMA_VERSION = 2

_SCHEMA = (
    # After `id`, which counts up in order of submission and breaks ties, the columns are Task's fields in
    # their order: the statements below rely on it.
    """
    CREATE TABLE task (
        id INTEGER PRIMARY KEY,
        uuid TEXT NOT NULL UNIQUE,
        queue TEXT NOT NULL,
        current_state TEXT NOT NULL,
        auto_target_state TEXT NOT NULL,
        submit_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        timeout INTEGER NOT NULL,
        payload BLOB NOT NULL,
        priority INTEGER NOT NULL
    )
    """,
    # A claim reads the first entry of its queue and state. SQLite ends every index with the row's id.
    "CREATE INDEX task_next ON task (queue, current_state, priority DESC, update_time)",
    # It has only tasks that can time out, so a clean-up without any costs nothing.
    "CREATE INDEX task_expiry ON task (update_time + timeout * 1000000000) WHERE timeout > 0",
    """
    CREATE TABLE archived_task (
        uuid TEXT PRIMARY KEY,
        queue TEXT NOT NULL,
        state TEXT NOT NULL,
        submit_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)

_KEEP_ARCHIVED_NS = 7 * 86_400 * 10**9
# The changes of each version after the first; a new file gets all of them.
_CHANGES = {
    2: (
        "CREATE INDEX archived_task_age ON archived_task (update_time)",
        # At most two old tasks are removed for each new one: the archive shrinks, and no call removes many.
        f"""
        CREATE TRIGGER archived_task_forgotten AFTER INSERT ON archived_task BEGIN
            DELETE FROM archived_task WHERE uuid IN (
                SELECT uuid FROM archived_task WHERE update_time < NEW.update_time - {_KEEP_ARCHIVED_NS}
                ORDER BY update_time LIMIT 2
            );
        END
        """,  # noqa: S608  # a number of ours
    )
}

_INSERT = "INSERT INTO task VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FIND = """
    SELECT * FROM task WHERE uuid = ?
    UNION ALL
    SELECT NULL, uuid, queue, state, state, submit_time, update_time, 0, x'', 0
    FROM archived_task WHERE uuid = ?
    """
_NEXT = """
    SELECT * FROM task WHERE queue = ? AND current_state = ?
    ORDER BY priority DESC, update_time, id LIMIT 1
    """
_CLAIM = "UPDATE task SET current_state = ?, auto_target_state = ?, timeout = ?, update_time = ? WHERE id = ?"
_UPDATE = """
    UPDATE task SET current_state = ?, auto_target_state = ?, timeout = ?, priority = ?,
        payload = coalesce(?, payload), update_time = ?
    WHERE uuid = ? RETURNING *
    """
_DELETE = "DELETE FROM task WHERE uuid = ? RETURNING *"
_ARCHIVE = "INSERT OR REPLACE INTO archived_task VALUES (?, ?, ?, ?, ?)"
_SWAP_TIMED_OUT = """
    UPDATE task SET current_state = auto_target_state, auto_target_state = current_state,
        timeout = 0, update_time = ?
    WHERE timeout > 0 AND update_time + timeout * 1000000000 < ? AND (? = '' OR queue = ?)
    """
_COUNTS = "SELECT queue, current_state, count(*) FROM task GROUP BY queue, current_state"
_STATE_COUNTS = "SELECT current_state, count(*) FROM task WHERE queue = ? GROUP BY current_state"


T = TypeVar("T")


class Trouble(Enum):
    """Why the database failed, as far as it matters to the caller."""

    BUSY = "busy"
    """Another process holds it; try again later."""
    FULL = "full"
    """The disk is full; only an operator can help."""
    BROKEN = "broken"
    """Anything else: an I/O error, a damaged file, no permission."""


class StorageError(CorndogsError):
    """The database failed, and the call had no effect."""

    def __init__(self, message: str, trouble: Trouble) -> None:
        super().__init__(message)
        self.trouble = trouble


class TaskStorage:
    """The tasks of one embedded server.

    Every method but ``open`` and ``close`` may be called from several threads at once, is one transaction,
    and raises ``StorageError``. A change is on disk when its method returns. Times are Unix nanoseconds
    from ``clock_ns``. Arguments are stored unchanged: ``TaskCalls`` has the defaults and checks.

    Writers share one connection behind a fair lock: SQLite's own busy handler has no order, so that with
    eight writers some writes would take seconds. Readers share another and never wait for writers.
    """

    def __init__(self, path: Path, clock_ns: Callable[[], int]) -> None:
        self._path = path
        self._clock_ns = clock_ns
        self._write_lock = FairLock()
        self._read_lock = FairLock()
        self._writer = self._connection({"synchronous": "full", "foreign_keys": 1})
        self._reader = self._connection({"query_only": 1})
        self._execute: Execute = self._writer.execute_sql
        self._group = GroupCommit(self._write_lock, self._execute)

    def open(self) -> None:
        """Open the file, or create it and its tables.

        Raises ``ConfigurationError`` when the file cannot be opened, belongs to another program, or was
        written by a newer version of this one; the file is unchanged then.
        """
        try:
            self._writer.connect()
            self._prepare()
            self._reader.connect()
        except (PeeweeException, sqlite3.Error) as exc:
            self.close()
            raise ConfigurationError(
                f"the Corndogs database {self._path} cannot be opened: {reason(exc)}"
            ) from exc
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; safe to repeat. Waits for the statements that are running."""
        with self._read_lock:
            self._reader.close()
        with self._write_lock:
            self._writer.close()

    def submit(
        self,
        queue: str,
        current_state: str,
        auto_target_state: str,
        timeout_s: int,
        payload: bytes,
        priority: int,
    ) -> Task:
        """Store and return a new task with a random UUID."""
        task_uuid = str(uuid.uuid4())

        def insert() -> Task:
            # Read under the lock, so that the order of times is the order of commits.
            now = self._clock_ns()
            states = (current_state, auto_target_state)
            fields = (task_uuid, queue, *states, now, now, timeout_s, payload, priority)
            self._execute(_INSERT, fields)
            return Task(*fields)

        return self._write_one(insert)

    def find(self, task_uuid: str) -> Task | None:
        """Return the task with this UUID, live or archived; archived tasks are kept for a week at least."""
        with self._reading() as execute:
            return _first(execute(_FIND, (task_uuid, task_uuid)))

    def claim(
        self,
        queues: Collection[str],
        current_state: str,
        override_timeout_s: int,
        override_current_state: str,
        override_auto_target_state: str,
    ) -> tuple[Task, Task] | None:
        """Claim the next task of these queues; return it as it was before the claim, and as it is now."""
        with self._writing() as execute:
            rows = (row for queue in set(queues) for row in execute(_NEXT, (queue, current_state)).fetchall())
            # Between the queues as _NEXT does it within one: by priority, update time and id.
            row = min(rows, key=lambda row: (-row[-1], row[6], row[0]), default=None)
            if row is None:
                return None
            row_id, *fields = row
            waiting = Task(*fields)
            claimed = replace(
                waiting,
                current_state=override_current_state or waiting.auto_target_state,
                auto_target_state=override_auto_target_state or current_state,
                timeout_s=max(override_timeout_s, 0) if override_timeout_s else waiting.timeout_s,
                update_time_ns=self._clock_ns(),
            )
            states = (claimed.current_state, claimed.auto_target_state)
            execute(_CLAIM, (*states, claimed.timeout_s, claimed.update_time_ns, row_id))
            return waiting, claimed

    def update(
        self,
        task_uuid: str,
        new_state: str,
        auto_target_state: str,
        timeout_s: int,
        payload: bytes,
        priority: int,
    ) -> Task | None:
        """Change a live task and return it, or None if there is none; an empty payload changes nothing."""

        def change() -> Task | None:
            fields = (new_state, auto_target_state, timeout_s, priority, payload or None, self._clock_ns())
            return _first(self._execute(_UPDATE, (*fields, task_uuid)))

        return self._write_one(change)

    def archive(self, task_uuid: str, final_state: str) -> Task | None:
        """Move a live task to the archive and return it as archived, or None if there is none."""
        with self._writing() as execute:
            task = _first(execute(_DELETE, (task_uuid,)))
            if task is None:
                return None
            now = self._clock_ns()
            execute(_ARCHIVE, (task_uuid, task.queue, final_state, task.submit_time_ns, now))
            return replace(
                task,
                current_state=final_state,
                auto_target_state=final_state,
                update_time_ns=now,
                timeout_s=0,
                payload=b"",
                priority=0,
            )

    def swap_timed_out(self, at_time_ns: int, queue: str) -> int:
        """Swap the states of the tasks timed out by then, in one queue, or in all for ""; return how many."""
        with self._writing() as execute:
            return execute(_SWAP_TIMED_OUT, (self._clock_ns(), at_time_ns, queue, queue)).rowcount

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of live tasks by queue, then state."""
        counts: dict[str, dict[str, int]] = {}
        with self._reading() as execute:
            for queue, state, count in execute(_COUNTS).fetchall():
                counts.setdefault(queue, {})[state] = count
        return counts

    def state_counts(self, queue: str) -> dict[str, int]:
        """Return the number of this queue's live tasks by state."""
        with self._reading() as execute:
            return dict(execute(_STATE_COUNTS, (queue,)).fetchall())

    def _connection(self, pragmas: dict[str, Any]) -> SqliteDatabase:
        # Not opened yet. One connection for all threads, with our own locks in place of peewee's.
        return SqliteDatabase(
            str(self._path),
            pragmas=pragmas,
            timeout=5,
            thread_safe=False,
            check_same_thread=False,
            autoconnect=False,
        )

    def _prepare(self) -> None:
        execute = self._execute
        with transaction(execute):
            [(application_id,)] = execute("PRAGMA application_id").fetchall()
            [(version,)] = execute("PRAGMA user_version").fetchall()
            [(is_empty,)] = execute("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)").fetchall()
            if is_empty:
                version = 1
                for statement in _SCHEMA:
                    execute(statement)
                execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            elif application_id != _APPLICATION_ID:
                raise ConfigurationError(f"{self._path} is not a Corndogs database; name another file")
            elif version > _SCHEMA_VERSION:
                raise ConfigurationError(
                    f"{self._path} was written by a newer version of Reactorcide (schema {version}, this one "
                    f"knows {_SCHEMA_VERSION}); run that version or a later one"
                )
            for newer in range(version + 1, _SCHEMA_VERSION + 1):
                for statement in _CHANGES[newer]:
                    execute(statement)
            execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        # Only after the check that the file is ours: this setting is stored in it.
        execute("PRAGMA journal_mode = wal")

    def _write_one(self, statement: Callable[[], T]) -> T:
        """Run one SQL statement by group commit."""
        try:
            return self._group.run(statement)
        except (PeeweeException, sqlite3.Error) as exc:
            raise _translated(exc) from exc

    @contextmanager
    def _writing(self) -> Iterator[Execute]:
        """Run the body in a transaction of its own."""
        with self._write_lock:
            try:
                with transaction(self._execute) as execute:
                    yield execute
            except (PeeweeException, sqlite3.Error) as exc:
                raise _translated(exc) from exc

    @contextmanager
    def _reading(self) -> Iterator[Execute]:
        with self._read_lock:
            try:
                execute: Execute = self._reader.execute_sql
                yield execute
            except (PeeweeException, sqlite3.Error) as exc:
                raise _translated(exc) from exc


def _first(cursor: sqlite3.Cursor) -> Task | None:
    # Fetch all rows: an unfinished statement with RETURNING blocks the commit.
    rows = cursor.fetchall()
    return Task(*rows[0][1:]) if rows else None


def _translated(exc: PeeweeException | sqlite3.Error) -> StorageError:
    # peewee's own errors have the driver's error as `orig`. The low byte of SQLite's code is the primary
    # result code.
    code = getattr(getattr(exc, "orig", exc), "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            "the Corndogs database is in use by another process; try again later", Trouble.BUSY
        )
    if code == sqlite3.SQLITE_FULL:
        return StorageError("the disk that holds the Corndogs database is full; make room", Trouble.FULL)
    return StorageError(f"the Corndogs database failed: {reason(exc)}", Trouble.BROKEN)
