"""The embedded server's SQLite file."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reactorcide.corndogs import storage as storage_module
from reactorcide.corndogs.storage import StorageError, TaskStorage, Trouble
from reactorcide.domain.errors import ConfigurationError


@pytest.fixture
def storage(database_path: Path) -> Iterator[TaskStorage]:
    opened = TaskStorage(database_path, time.time_ns)
    opened.open()
    yield opened
    opened.close()


def _submit(storage: TaskStorage, payload: bytes = b"", priority: int = 0) -> str:
    return storage.submit("q", "submitted", "submitted-working", 0, payload, priority).uuid


def _execute(
    storage: TaskStorage, statement: str, parameters: Sequence[object] = ()
) -> list[tuple[Any, ...]]:
    """Run a statement on the connection that writes, behind the storage's back."""
    execute: Callable[..., sqlite3.Cursor] = storage._writer.execute_sql
    return execute(statement, parameters).fetchall()


def _plan(storage: TaskStorage, statement: str) -> list[str]:
    parameters = [""] * statement.count("?")
    return [row[3] for row in _execute(storage, f"EXPLAIN QUERY PLAN {statement}", parameters)]


class TestQueryPlans:
    """Nothing that grows with the number of waiting tasks: no scan, no sort."""

    def test_a_claim_reads_one_entry_of_its_index(self, storage: TaskStorage) -> None:
        assert _plan(storage, storage_module._NEXT) == [
            "SEARCH task USING INDEX task_next (queue=? AND current_state=?)"
        ]

    def test_clean_up_reads_only_expired_tasks(self, storage: TaskStorage) -> None:
        assert _plan(storage, storage_module._SWAP_TIMED_OUT) == [
            "SEARCH task USING INDEX task_expiry (<expr><?)"
        ]

    @pytest.mark.parametrize("statement", ["_CLAIM", "_UPDATE", "_DELETE"])
    def test_change_uses_the_primary_key(self, storage: TaskStorage, statement: str) -> None:
        [step] = _plan(storage, getattr(storage_module, statement))
        assert step.startswith("SEARCH task USING ")

    def test_lookup_uses_the_primary_key(self, storage: TaskStorage) -> None:
        steps = " ".join(_plan(storage, storage_module._FIND))
        assert "SEARCH task USING INDEX" in steps
        assert "SEARCH archived_task USING PRIMARY KEY" in steps

    @pytest.mark.parametrize("statement", ["_COUNTS", "_STATE_COUNTS"])
    def test_counting_reads_the_index_and_no_tasks(self, storage: TaskStorage, statement: str) -> None:
        [step] = _plan(storage, getattr(storage_module, statement))
        assert "USING COVERING INDEX task_next" in step


def test_writes_are_durable_and_readers_do_not_wait(storage: TaskStorage) -> None:
    pragma = storage._writer.pragma
    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL
    assert pragma("foreign_keys") == 1
    assert pragma("busy_timeout") == 5000


def test_equal_times_are_claimed_in_order_of_submission(database_path: Path) -> None:
    storage = TaskStorage(database_path, lambda: 1)
    storage.open()
    submitted = [_submit(storage) for _ in range(20)]
    claimed = [storage.claim(["q"], "submitted", 0, "", "") for _ in submitted]
    storage.close()
    assert [tasks[1].uuid for tasks in claimed if tasks] == submitted


def test_tasks_outlive_the_process(database_path: Path) -> None:
    storage = TaskStorage(database_path, time.time_ns)
    storage.open()
    task_uuid = _submit(storage, b"payload")
    storage.close()
    storage.open()
    tasks = storage.claim(["q"], "submitted", 0, "", "")
    storage.close()
    assert tasks is not None
    task = tasks[1]
    assert (task.uuid, task.payload) == (task_uuid, b"payload")


def test_closing_twice_is_fine_and_leaves_one_file(storage: TaskStorage, database_path: Path) -> None:
    _submit(storage)
    storage.close()
    storage.close()
    assert [path.name for path in database_path.parent.iterdir()] == [database_path.name]


def test_timeout_beyond_the_largest_time_never_expires(storage: TaskStorage) -> None:
    task = storage.submit("q", "submitted", "submitted-working", 2**63 - 1, b"", 0)
    assert storage.swap_timed_out(2**63 - 1, "q") == 0
    assert storage.find(task.uuid) == task


class TestForgetting:
    """Archived tasks stay for a week and are then removed, a few at a time."""

    WEEK_NS = 7 * 86_400 * 10**9

    def test_old_archived_tasks_are_removed_as_new_ones_are_archived(self, database_path: Path) -> None:
        now = [10**18]
        storage = TaskStorage(database_path, lambda: now[0])
        storage.open()

        def archived() -> str:
            task_uuid = _submit(storage)
            storage.archive(task_uuid, "completed")
            return task_uuid

        old = [archived() for _ in range(5)]
        now[0] += self.WEEK_NS
        archived()
        assert all(storage.find(task_uuid) for task_uuid in old)
        now[0] += 1
        counts = []
        for _ in range(3):
            last = archived()
            counts.append(sum(storage.find(task_uuid) is not None for task_uuid in old))
        assert counts == [3, 1, 0]
        assert storage.find(last) is not None
        assert _execute(storage, "SELECT count(*) FROM archived_task") == [(4,)]
        storage.close()

    def test_older_file_is_migrated(self, database_path: Path) -> None:
        first = sqlite3.connect(database_path)
        for statement in storage_module._SCHEMA:
            first.execute(statement)
        first.execute(f"PRAGMA application_id = {storage_module._APPLICATION_ID}")
        first.execute("PRAGMA user_version = 1")
        first.execute("INSERT INTO archived_task VALUES ('old', 'q', 'completed', 1, 1)")
        first.commit()
        first.close()
        storage = TaskStorage(database_path, time.time_ns)
        for _ in range(2):
            storage.open()
            storage.archive(_submit(storage), "completed")
            assert storage.find("old") is None
            storage.close()


class TestRefusedFiles:
    def test_newer_version_is_refused(self, storage: TaskStorage, database_path: Path) -> None:
        _execute(storage, "PRAGMA user_version = 99")
        storage.close()
        with pytest.raises(ConfigurationError, match="newer version"):
            storage.open()

    def test_database_of_another_program_is_refused(self, database_path: Path) -> None:
        with sqlite3.connect(database_path) as other:
            other.execute("CREATE TABLE theirs (id)")
        other.close()
        content = database_path.read_bytes()
        with pytest.raises(ConfigurationError, match="not a Corndogs database"):
            TaskStorage(database_path, time.time_ns).open()
        assert database_path.read_bytes() == content

    def test_file_that_is_not_a_database_is_refused(self, database_path: Path) -> None:
        database_path.write_bytes(b"something else " * 100)
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            TaskStorage(database_path, time.time_ns).open()

    def test_missing_directory_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            TaskStorage(tmp_path / "missing" / "corndogs.db", time.time_ns).open()


class TestTrouble:
    def test_full_disk_changes_nothing_and_is_recovered_from(self, storage: TaskStorage) -> None:
        pages = storage._writer.pragma("page_count")
        _execute(storage, f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageError) as caught:
            _submit(storage, payload=b"x" * 100_000)
        assert caught.value.trouble is Trouble.FULL
        assert storage.counts() == {}
        _execute(storage, "PRAGMA max_page_count = 100000")
        _submit(storage, payload=b"x" * 100_000)
        assert storage.state_counts("q") == {"submitted": 1}

    def test_file_locked_by_another_process_is_an_error(
        self, storage: TaskStorage, database_path: Path
    ) -> None:
        _execute(storage, "PRAGMA busy_timeout = 50")
        other = sqlite3.connect(database_path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError) as caught:
            _submit(storage)
        assert caught.value.trouble is Trouble.BUSY
        assert storage.counts() == {}  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        _submit(storage)

    def test_damaged_file_is_an_error(self, storage: TaskStorage) -> None:
        _execute(storage, "DROP TABLE archived_task")
        task_uuid = _submit(storage)
        with pytest.raises(StorageError) as caught:
            storage.archive(task_uuid, "completed")
        assert caught.value.trouble is Trouble.BROKEN
        # All of the change or nothing of it.
        assert storage.state_counts("q") == {"submitted": 1}

    def test_rollback_by_sqlite_does_not_hide_the_reason(self, storage: TaskStorage) -> None:
        _execute(
            storage,
            "CREATE TRIGGER stop BEFORE INSERT ON task BEGIN SELECT RAISE(ROLLBACK, 'the first error'); END",
        )
        with pytest.raises(StorageError, match="the first error"):
            _submit(storage)
        _execute(storage, "DROP TRIGGER stop")
        _submit(storage)
