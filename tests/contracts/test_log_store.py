"""One suite over every log store, with every kind of object store behind it."""

import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reactorcide.domain.errors import InvalidInput, ObjectNotFound, ObjectStoreError, StoreError
from reactorcide.domain.jobs import attempt_prefix, log_index_key, log_key
from reactorcide.domain.logs import parse_log_key
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.logs import LogStore
from reactorcide.logs.local import LocalLogStore
from reactorcide.logs.reader import LogView, follow_log
from reactorcide.logs.rows import RowLogStore
from reactorcide.logs.writer import LogWriter
from reactorcide.objects import ObjectStore
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.objects.memory import MemoryObjectStore
from reactorcide.store.database import Database
from reactorcide.store.log_pieces import MAX_PIECE_BYTES, LogPieces
from tests.support.store import AnyDatabase, new_database

KEY = log_key("job", 1)
INDEX_KEY = log_index_key("job", 1)
PREFIX = attempt_prefix("job", 1)


@pytest.fixture(params=["filesystem", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryObjectStore()
    return FilesystemObjectStore(tmp_path / "objects")


@pytest.fixture(params=["local", "sqlite", "postgresql"])
def logs(request: pytest.FixtureRequest, objects: ObjectStore, tmp_path: Path) -> Iterator[LogStore]:
    if request.param == "local":
        yield LocalLogStore(tmp_path / "logs", objects)
        return
    with closing(new_database(request.param, tmp_path / "jobs.db")) as database:
        yield RowLogStore(LogPieces(database), objects)


def put_method(logs: LogStore) -> str:
    """Return the method of the object store that sealing calls."""
    return "put_file" if isinstance(logs, LocalLogStore) else "replace"


def whole(store: LogStore | ObjectStore, key: str = KEY) -> bytes:
    return b"".join(store.read(key))


def write(logs: LogStore, *parts: bytes, key: str = KEY) -> None:
    file = logs.append(key)
    for part in parts:
        file.write(part)
    file.close()


def test_appended_bytes_are_readable_at_once_and_later(logs: LogStore) -> None:
    log = logs.append(KEY)
    log.write(b"one\n")
    assert whole(logs) == b"one\n"
    log.write(b"two\n")
    assert log.size_bytes == logs.size(KEY) == 8
    assert b"".join(logs.read(KEY, 2, 5)) == b"e\nt"
    log.close()
    log.close()
    again = logs.append(KEY)
    assert again.size_bytes == 8
    again.write(b"three\n")
    again.close()
    assert whole(logs) == b"one\ntwo\nthree\n"


def test_log_is_truncated_and_continued(logs: LogStore) -> None:
    log = logs.append(KEY)
    log.write(b"keep|drop")
    log.cut_back(4)
    log.write(b"!")
    log.close()
    assert whole(logs) == b"keep!"


def test_only_a_sealed_log_is_an_object(logs: LogStore, objects: ObjectStore) -> None:
    write(logs, b"text")
    write(logs, b"index", key=INDEX_KEY)
    write(logs, b"of another", key=log_key("job", 2))
    assert list(objects.list("jobs/")) == []
    assert sorted((file.key, file.size_bytes) for file in logs.unsealed(PREFIX)) == [(KEY, 4), (INDEX_KEY, 5)]
    for _ in range(2):
        logs.seal(PREFIX)
        assert [file.key for file in logs.unsealed()] == [log_key("job", 2)]
        assert (whole(objects), whole(objects, INDEX_KEY)) == (b"text", b"index")
        assert (whole(logs), logs.size(INDEX_KEY)) == (b"text", 5)


def test_a_sealed_log_is_reopened_and_sealed_again(logs: LogStore, objects: ObjectStore) -> None:
    write(logs, b"x" * 600_000, b"one\n")
    logs.seal(PREFIX)
    file = logs.append(KEY)
    assert file.size_bytes == 600_004
    file.cut_back(600_000)
    file.write(b"two\n")
    assert whole(logs) == b"x" * 600_000 + b"two\n"
    file.close()
    logs.seal(PREFIX)
    assert whole(objects) == whole(logs) == b"x" * 600_000 + b"two\n"


def test_a_log_of_a_version_that_wrote_objects_can_be_read_and_continued(
    logs: LogStore, objects: ObjectStore
) -> None:
    objects.put(KEY, [b"of an older version\n"])
    assert whole(logs) == b"of an older version\n"
    write(logs, b"of this one\n")
    assert whole(logs) == b"of an older version\nof this one\n"


def test_a_log_that_cannot_be_sealed_stays_readable(
    logs: LogStore, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(logs, b"text")

    def fail(key: str, content: object, *tag: object) -> None:
        raise ObjectStoreError("the object store is away")

    with monkeypatch.context() as patch:
        patch.setattr(objects, put_method(logs), fail)
        with pytest.raises(ObjectStoreError):
            logs.seal(PREFIX)
        assert whole(logs) == b"text"
    logs.seal(PREFIX)
    assert whole(objects) == b"text"


class Killed(BaseException):
    """In place of a SIGKILL: nothing handles it."""


@pytest.mark.parametrize("file_number", [0, 1])
@pytest.mark.parametrize("stored", [False, True])
def test_a_kill_while_a_log_is_sealed_loses_nothing(
    logs: LogStore,
    objects: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    file_number: int,
    stored: bool,
) -> None:
    writer = LogWriter(logs, LocalNotifier(), "job", 1)
    writer.feed([(1, b"one\n"), (2, b"two\n")])
    writer.end()
    writer.close()
    put, put_sealed, calls = objects.put, getattr(objects, put_method(logs)), 0

    def killed(key: str, content: Path | Iterable[bytes], *tag: object) -> None:
        nonlocal calls
        calls += 1
        if calls <= file_number:
            put_sealed(key, content, *tag)
            return
        if stored:
            # The bytes are there, and the file or its rows are still there as well.
            put(key, [content.read_bytes()] if isinstance(content, Path) else content)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(objects, put_method(logs), killed)
        with pytest.raises(Killed):
            logs.seal(PREFIX)
    view = LogView(logs, "job", 1)
    assert b"".join(view.read(0, view.end)) == b"one\ntwo\n"
    # An adopter goes on with it.
    again = LogWriter(logs, LocalNotifier(), "job", 1)
    assert again.size_bytes == 8
    again.restart(0)
    again.feed([(1, b"one\n"), (2, b"two\n"), (1, b"three\n")])
    again.end()
    again.close()
    logs.seal(PREFIX)
    assert list(logs.unsealed()) == []
    assert whole(objects) == b"one\ntwo\nthree\n"


def test_a_follower_and_readers_see_every_byte_while_it_is_sealed(
    logs: LogStore, objects: ObjectStore
) -> None:
    notifier, closed = LocalNotifier(), threading.Event()
    writer = LogWriter(logs, notifier, "job", 1)
    expected = b"".join(b"%d\n" % number for number in range(200))
    followed: list[bytes] = []
    trouble: list[str] = []

    def follow() -> None:
        for view, start, end in follow_log(logs, notifier, "job", 1, closed.is_set):
            followed.append(b"".join(view.read(start, end)))

    def look() -> None:
        last_bytes = 0
        while not closed.is_set():
            view = LogView(logs, "job", 1)
            if view.end < last_bytes or b"".join(view.read(0, view.end)) != expected[: view.end]:
                trouble.append(f"{view.end} bytes after {last_bytes}")
            last_bytes = view.end

    threads = [threading.Thread(target=target) for target in (follow, look, look)]
    for thread in threads:
        thread.start()
    for number in range(200):
        writer.feed([(1, b"%d\n" % number)])
        if number % 10 == 9:
            # As where the service is killed after it was sealed, and the attempt is adopted, again and again.
            writer.end()
            writer.close()
            logs.seal(PREFIX)
            writer = LogWriter(logs, notifier, "job", 1)
    writer.close()
    logs.seal(PREFIX)
    closed.set()
    notifier.announce("job")
    for thread in threads:
        thread.join(30)
    assert trouble == []
    assert b"".join(followed) == expected == whole(objects)


def test_a_missing_key_is_an_error_at_once(logs: LogStore) -> None:
    for call in (logs.read, logs.size):
        with pytest.raises(ObjectNotFound):
            call(KEY)
    assert list(logs.unsealed()) == []
    logs.seal(PREFIX)
    logs.delete(PREFIX)


def test_delete_removes_only_the_matching_logs(logs: LogStore, objects: ObjectStore) -> None:
    for job_id in ("job", "job2"):
        for attempt in (1, 2):
            write(logs, b"x", key=log_key(job_id, attempt))
    logs.seal(PREFIX)
    for _ in range(2):
        logs.delete("jobs/job/")
        objects.delete("jobs/job/")
    for attempt in (1, 2):
        with pytest.raises(ObjectNotFound):
            logs.size(log_key("job", attempt))
        assert logs.size(log_key("job2", attempt)) == 1


@pytest.mark.parametrize(
    "key",
    ["", "log", "jobs/job/1/artifacts/log", "jobs/../1/log", "jobs/a.b/1/log", "jobs/job/x/log", f"{KEY}/"],
)
def test_only_logs_can_be_written(logs: LogStore, key: str) -> None:
    for call in (logs.append, logs.read, logs.size):
        with pytest.raises(InvalidInput):
            call(key)


class TestLocal:
    """What only the store on a local directory has to hold."""

    @pytest.fixture
    def logs(self, tmp_path: Path) -> LocalLogStore:
        return LocalLogStore(tmp_path / "logs", FilesystemObjectStore(tmp_path / "objects"))

    def test_sealing_renames_and_does_not_copy(self, logs: LocalLogStore, tmp_path: Path) -> None:
        write(logs, b"x" * 1_000_000)
        number = logs.path(KEY).stat().st_ino
        reader = logs.read(KEY)
        logs.seal(PREFIX)
        assert (tmp_path / "objects" / KEY).stat().st_ino == number
        # A reader that has started reads on.
        assert b"".join(reader) == b"x" * 1_000_000

    def test_files_and_directories_are_synced(
        self, logs: LocalLogStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []

        def recorded(name: str) -> None:
            real = getattr(os, name)

            def call(descriptor: int) -> None:
                place = os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(tmp_path))
                calls.append(f"{name} {place}")
                real(descriptor)

            monkeypatch.setattr(os, name, call)

        for name in ("fdatasync", "fsync"):
            recorded(name)
        files = [logs.append(key) for key in (INDEX_KEY, KEY)]
        assert calls == ["fsync /logs"] * 2
        calls.clear()
        for file in files:
            file.write(b"x")
            assert calls == []
        for file in files:
            file.close()
        assert calls == ["fdatasync /logs/job.1.log.idx", "fdatasync /logs/job.1.log"]
        calls.clear()
        logs.seal(PREFIX)
        # The directories of the job and of the attempt, and the two names in the latter.
        assert calls[-2:] == ["fsync /objects/jobs/job/1"] * 2
        assert calls[:-2] == ["fsync /objects", "fsync /objects/jobs", "fsync /objects/jobs/job"]

    def test_no_planted_link_is_followed(self, logs: LocalLogStore, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "logs").mkdir()
        for target, key in ((tmp_path / "secret", KEY), (tmp_path / "new", INDEX_KEY)):
            logs.path(key).symlink_to(target)
            for call in (logs.append, logs.read):
                with pytest.raises(ObjectStoreError):
                    call(key)
        assert (tmp_path / "secret").read_text() == "secret"
        assert not (tmp_path / "new").exists()

    def test_a_pipe_does_not_hold_up_a_reader(self, logs: LocalLogStore, tmp_path: Path) -> None:
        (tmp_path / "logs").mkdir()
        os.mkfifo(logs.path(KEY))
        with pytest.raises(ObjectNotFound):
            logs.read(KEY)

    def test_the_file_of_a_killed_reopening_is_removed(self, logs: LocalLogStore, tmp_path: Path) -> None:
        half = tmp_path / "logs" / ".tmp" / "half"
        half.parent.mkdir(parents=True)
        half.write_bytes(b"half")
        assert list(logs.unsealed()) == []
        logs.remove_leftovers()
        logs.remove_leftovers()
        assert not half.exists()

    def test_an_unusable_directory_is_an_error_of_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        logs = LocalLogStore(tmp_path / "file", MemoryObjectStore())
        with pytest.raises(ObjectStoreError, match="could not write"):
            logs.append(KEY)


class TestRows:
    """What only the store in the job database has to hold."""

    @pytest.fixture
    def objects(self) -> ObjectStore:
        return MemoryObjectStore()

    @pytest.fixture(params=["sqlite", "postgresql"])
    def database(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyDatabase]:
        with closing(new_database(request.param, tmp_path / "jobs.db")) as database:
            yield database

    @pytest.fixture
    def pieces(self, database: AnyDatabase) -> LogPieces:
        return LogPieces(database)

    @pytest.fixture
    def logs(self, pieces: LogPieces, objects: ObjectStore) -> LogStore:
        return RowLogStore(pieces, objects)

    def piece_sizes(self, database: AnyDatabase, key: str = KEY) -> list[int]:
        name = key.rpartition("/")[2]
        sql = "SELECT length(data) FROM log_piece WHERE name = ? ORDER BY start_at"
        with database.read() as db:
            return [size for (size,) in db.execute_sql(sql, (name,)).fetchall()]

    def test_many_short_writes_are_few_pieces_and_long_ones_are_bounded(
        self, logs: LogStore, database: AnyDatabase
    ) -> None:
        file = logs.append(KEY)
        lines = [b"%d\n" % number for number in range(300)]
        for line in lines:
            file.write(line)
        sizes = self.piece_sizes(database)
        assert len(sizes) < 15
        assert whole(logs) == b"".join(lines)
        file.write(b"x" * 3_000_000)
        sizes = self.piece_sizes(database)
        assert max(sizes) == MAX_PIECE_BYTES
        assert len(sizes) < 65
        assert whole(logs) == b"".join(lines) + b"x" * 3_000_000

    def test_a_byte_is_written_a_few_times_at_most(
        self, pieces: LogPieces, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written_bytes = 0
        add = pieces.add

        def counted(*args: Any, merged: bytes, **named: Any) -> bool:
            nonlocal written_bytes
            written_bytes += len(args[3]) + len(merged)
            return add(*args, merged=merged, **named)

        monkeypatch.setattr(pieces, "add", counted)
        file = RowLogStore(pieces, objects).append(KEY)
        for _ in range(300):
            file.write(b"x" * 40)
        assert written_bytes < 300 * 40 * 10

    def test_every_range_is_read_over_pieces_and_the_object_before_them(
        self, logs: LogStore, objects: ObjectStore
    ) -> None:
        expected = bytes(range(256)) * 4
        write(logs, expected[:300])
        logs.seal(PREFIX)
        file = logs.append(KEY)
        for start in range(300, 1024, 7):
            file.write(expected[start : min(start + 7, 1024)])
        for start in range(0, 1030, 13):
            for end in (None, start, start + 1, start + 50, 300, 2000):
                assert b"".join(logs.read(KEY, start, end)) == expected[start:end], (start, end)
        assert whole(objects) == expected[:300]

    def test_whoever_opens_a_log_takes_it_from_its_writer(
        self, pieces: LogPieces, objects: ObjectStore
    ) -> None:
        # Two services on one database, of which the first was taken for dead.
        first, second = (RowLogStore(pieces, objects) for _ in range(2))
        old = first.append(KEY)
        old.write(b"one\n")
        new = second.append(KEY)
        new.cut_back(2)
        new.write(b"ly\n")
        for _ in range(2):
            with pytest.raises(ObjectStoreError, match="is written by another service now"):
                old.write(b"two\n")
            with pytest.raises(ObjectStoreError, match="is written by another service now"):
                old.cut_back(1)
        new.write(b"three\n")
        assert whole(first) == b"only\nthree\n"

    def test_two_who_write_at_one_offset_cannot_both(self, pieces: LogPieces) -> None:
        log = parse_log_key(KEY)
        pieces.open(log, "writer", size_bytes=0)
        assert pieces.add(log, "writer", 0, b"one", merged_from=0, merged=b"")
        assert not pieces.add(log, "writer", 0, b"two", merged_from=0, merged=b"")
        assert not pieces.add(log, "another", 3, b"two", merged_from=3, merged=b"")
        assert pieces.read(log, 0, 9) == [(0, b"one")]

    def test_a_writer_goes_on_after_the_database_has_failed(
        self, pieces: LogPieces, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logs = RowLogStore(pieces, objects)
        writer = LogWriter(logs, LocalNotifier(), "job", 1)
        writer.feed([(1, b"one\n")])
        add = pieces.add

        def lost(*args: Any, **named: Any) -> bool:
            # Committed, and the answer is lost.
            add(*args, **named)
            raise StoreError("the connection was lost")

        with monkeypatch.context() as patch:
            patch.setattr(pieces, "add", lost)
            with pytest.raises(ObjectStoreError, match="the connection was lost"):
                writer.feed([(1, b"two\n")])
        writer.restart(0)
        writer.feed([(1, b"one\n"), (1, b"two\n")])
        writer.end()
        writer.close()
        view = LogView(logs, "job", 1)
        assert b"".join(view.read(0, view.end)) == whole(logs) == b"one\ntwo\n"

    def test_two_services_may_seal_a_log_at_once(
        self, pieces: LogPieces, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logs, other = (RowLogStore(pieces, objects) for _ in range(2))
        write(logs, b"x" * 2_000_000)
        replace = objects.replace

        def late(key: str, chunks: Iterable[bytes], tag: str | None) -> int:
            # While the first service reads the rows, the second takes them away.
            monkeypatch.setattr(objects, "replace", replace)
            chunks = iter(chunks)
            first = next(chunks)
            other.seal(PREFIX)
            return replace(key, itertools.chain([first], chunks), tag)

        monkeypatch.setattr(objects, "replace", late)
        logs.seal(PREFIX)
        assert whole(objects) == whole(logs) == b"x" * 2_000_000
        assert list(logs.unsealed()) == []

    @pytest.mark.parametrize("is_sealed_before", [False, True])
    def test_a_slow_service_does_not_replace_what_another_has_sealed_meanwhile(
        self,
        pieces: LogPieces,
        objects: ObjectStore,
        monkeypatch: pytest.MonkeyPatch,
        is_sealed_before: bool,
    ) -> None:
        slow, other = (RowLogStore(pieces, objects) for _ in range(2))
        replace = objects.replace
        write(slow, b"one\n")
        if is_sealed_before:
            slow.seal(PREFIX)
            write(slow, b"two\n")
        sealed = []

        def late(key: str, chunks: Iterable[bytes], tag: str | None) -> int:
            # All is read and on its way when the job is adopted elsewhere, goes on and ends.
            monkeypatch.setattr(objects, "replace", replace)
            data = b"".join(chunks)
            write(other, b"three\n")
            other.seal(PREFIX)
            sealed.append(whole(other))
            return replace(key, [data], tag)

        monkeypatch.setattr(objects, "replace", late)
        slow.seal(PREFIX)
        [newest] = sealed
        assert newest.endswith(b"three\n")
        assert whole(objects) == whole(slow) == newest
        assert list(slow.unsealed()) == []

    def test_a_log_is_written_while_another_transaction_is_open(
        self, logs: LogStore, database: AnyDatabase
    ) -> None:
        if isinstance(database, Database):
            pytest.skip("SQLite has one writer")
        file = logs.append(KEY)
        with database.transaction():
            # As by another thread of any service: what jobs print holds up nobody, and nobody holds it up.
            thread = threading.Thread(target=write, args=(logs, b"x"), kwargs={"key": INDEX_KEY})
            thread.start()
            thread.join(10)
            assert not thread.is_alive()
        file.close()
        assert whole(logs, INDEX_KEY) == b"x"

    def test_the_rows_of_a_sealed_log_go(self, logs: LogStore, database: AnyDatabase) -> None:
        write(logs, b"text")
        logs.seal(PREFIX)
        with database.read() as db:
            sql = "SELECT (SELECT COUNT(*) FROM log_piece) + (SELECT COUNT(*) FROM log_file)"
            assert db.execute_sql(sql).fetchone() == (0,)

    def test_a_follower_in_another_service_sees_new_lines_without_a_hint(
        self, pieces: LogPieces, objects: ObjectStore
    ) -> None:
        logs, other = (RowLogStore(pieces, objects) for _ in range(2))
        writer = LogWriter(logs, LocalNotifier(), "job", 1)
        # A notifier of its own, which hears nothing of the writer's service.
        parts = follow_log(other, LocalNotifier(), "job", 1, lambda: False)
        for line in (b"one\n", b"two\n"):
            writer.feed([(1, line)])
            began = time.monotonic()
            view, start, end = next(part for part in parts if part[1] < part[2])
            assert b"".join(view.read(start, end)) == line
            assert time.monotonic() - began < 2
        parts.close()  # type: ignore[attr-defined]  # a generator
        writer.close()

    def test_unsealed_lists_more_files_than_one_query_returns(
        self, pieces: LogPieces, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reactorcide.store.log_pieces._LISTED_AT_ONCE", 3)
        logs = RowLogStore(pieces, objects)
        keys = sorted(log_key(f"job{number % 4}", number) for number in range(1, 9))
        for key in keys:
            write(logs, b"x", key=key)
        assert sorted(file.key for file in logs.unsealed()) == keys
        assert [file.key for file in logs.unsealed("jobs/job1/")] == [log_key("job1", 1), log_key("job1", 5)]
