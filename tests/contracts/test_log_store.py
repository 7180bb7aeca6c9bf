"""One suite over every log store, with every kind of object store behind it."""

import os
import threading
from pathlib import Path

import pytest

from reactorcide.domain.errors import InvalidInput, ObjectNotFound, ObjectStoreError
from reactorcide.domain.jobs import attempt_prefix, log_index_key, log_key
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.logs.local import LocalLogStore
from reactorcide.logs.reader import LogView, follow_log
from reactorcide.logs.writer import LogWriter
from reactorcide.objects import ObjectStore
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.objects.memory import MemoryObjectStore

KEY = log_key("job", 1)
INDEX_KEY = log_index_key("job", 1)
PREFIX = attempt_prefix("job", 1)


@pytest.fixture(params=["filesystem", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryObjectStore()
    return FilesystemObjectStore(tmp_path / "objects")


@pytest.fixture
def logs(objects: ObjectStore, tmp_path: Path) -> LocalLogStore:
    return LocalLogStore(tmp_path / "logs", objects)


def whole(store: LocalLogStore | ObjectStore, key: str = KEY) -> bytes:
    return b"".join(store.read(key))


def write(logs: LocalLogStore, *parts: bytes, key: str = KEY) -> None:
    file = logs.append(key)
    for part in parts:
        file.write(part)
    file.close()


def test_appended_bytes_are_readable_at_once_and_later(logs: LocalLogStore) -> None:
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


def test_log_is_truncated_and_continued(logs: LocalLogStore) -> None:
    log = logs.append(KEY)
    log.write(b"keep|drop")
    log.cut_back(4)
    log.write(b"!")
    log.close()
    assert whole(logs) == b"keep!"


def test_only_a_sealed_log_is_an_object(logs: LocalLogStore, objects: ObjectStore) -> None:
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


def test_a_sealed_log_is_reopened_and_sealed_again(logs: LocalLogStore, objects: ObjectStore) -> None:
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
    logs: LocalLogStore, objects: ObjectStore
) -> None:
    objects.put(KEY, [b"of an older version\n"])
    assert whole(logs) == b"of an older version\n"
    write(logs, b"of this one\n")
    assert whole(logs) == b"of an older version\nof this one\n"


def test_a_log_that_cannot_be_sealed_stays_readable(
    logs: LocalLogStore, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(logs, b"text")

    def fail(key: str, path: Path) -> None:
        raise ObjectStoreError("the object store is away")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "put_file", fail)
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
    logs: LocalLogStore,
    objects: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    file_number: int,
    stored: bool,
) -> None:
    writer = LogWriter(logs, LocalNotifier(), "job", 1)
    writer.feed([(1, b"one\n"), (2, b"two\n")])
    writer.end()
    writer.close()
    put_file, calls = objects.put_file, 0

    def killed(key: str, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls <= file_number:
            put_file(key, path)
            return
        if stored:
            # The bytes are there, and the file is still there as well.
            objects.put(key, [path.read_bytes()])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(objects, "put_file", killed)
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
    logs: LocalLogStore, objects: ObjectStore
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


def test_a_missing_key_is_an_error_at_once(logs: LocalLogStore) -> None:
    for call in (logs.read, logs.size):
        with pytest.raises(ObjectNotFound):
            call(KEY)
    assert list(logs.unsealed()) == []
    logs.seal(PREFIX)
    logs.delete(PREFIX)


def test_delete_removes_only_the_matching_logs(logs: LocalLogStore, objects: ObjectStore) -> None:
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
def test_only_logs_can_be_written(logs: LocalLogStore, key: str) -> None:
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
