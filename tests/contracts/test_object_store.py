"""One suite over every object store."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reactorcide.domain.errors import InvalidInput, ObjectNotFound, ObjectStoreError
from reactorcide.objects import ObjectStore
from reactorcide.objects.filesystem import FilesystemObjectStore

BASE = "objects"


@pytest.fixture(params=["filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    assert request.param == "filesystem"
    return FilesystemObjectStore(tmp_path / BASE)


def whole(store: ObjectStore, key: str) -> bytes:
    return b"".join(store.read(key))


def test_what_is_put_is_read(store: ObjectStore) -> None:
    assert store.put("a/b", [b"12", b"", b"345"]) == 5
    assert whole(store, "a/b") == b"12345"
    assert store.size("a/b") == 5


def test_a_second_put_replaces_the_first(store: ObjectStore) -> None:
    store.put("a", [b"a longer text"])
    store.put("a", [b"short"])
    assert whole(store, "a") == b"short"


def test_half_an_object_is_never_seen(store: ObjectStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        with pytest.raises(ObjectNotFound):
            store.size("a")
        raise KeyError

    with pytest.raises(KeyError):
        store.put("a", chunks())
    with pytest.raises(ObjectNotFound):
        store.read("a")
    store.put("dir/a", [b"x"])
    assert [item.key for item in store.list("dir/")] == ["dir/a"]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, None, b"0123456789"), (3, None, b"3456789"), (3, 5, b"34"), (8, 99, b"89"), (10, None, b"")],
)
def test_a_range_is_read(store: ObjectStore, start: int, end: int | None, expected: bytes) -> None:
    store.put("a", [b"0123456789"])
    assert b"".join(store.read("a", start, end)) == expected


def test_what_is_not_there_is_said_at_once(store: ObjectStore) -> None:
    for call in (store.read, store.size):
        with pytest.raises(ObjectNotFound):
            call("nope/a")


def test_appended_bytes_are_seen_at_once_and_kept(store: ObjectStore) -> None:
    log = store.append("a/log")
    log.write(b"one\n")
    assert whole(store, "a/log") == b"one\n"
    log.write(b"two\n")
    assert log.size_bytes == 8
    log.close()
    log.close()
    again = store.append("a/log")
    assert again.size_bytes == 8
    again.write(b"three\n")
    again.close()
    assert whole(store, "a/log") == b"one\ntwo\nthree\n"


def test_a_log_is_cut_back_and_written_on(store: ObjectStore) -> None:
    log = store.append("a/log")
    log.write(b"keep|drop")
    log.cut_back(4)
    log.write(b"!")
    log.close()
    assert whole(store, "a/log") == b"keep!"


def test_objects_are_listed_and_deleted_by_prefix(store: ObjectStore) -> None:
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/12/a"):
        store.put(key, [b"xyz"])
    assert sorted((item.key, item.size_bytes) for item in store.list("jobs/1/")) == [
        ("jobs/1/a", 3),
        ("jobs/1/b/c", 3),
    ]
    store.delete("jobs/1/")
    store.delete("jobs/1/")
    assert [item.key for item in store.list("jobs/")] == ["jobs/12/a"]
    assert list(store.list("nothing/")) == []


def test_two_may_delete_the_same_at_once(store: ObjectStore) -> None:
    for number in range(300):
        store.put(f"jobs/1/{number % 30}/{number}", [b"x"])
    both, problems = threading.Barrier(3), []

    def delete() -> None:
        both.wait()
        try:
            store.delete("jobs/1/")
        except ObjectStoreError as exc:
            problems.append(exc)

    threads = [threading.Thread(target=delete) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert list(store.list("jobs/")) == []


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "a//b", "../a", "a/../../b", "a/..", "./a", "a/.", "a/", "a\0b", ".tmp/x"]
)
def test_a_key_cannot_lead_out(store: ObjectStore, key: str) -> None:
    for call in (store.read, store.size, store.append):
        with pytest.raises(InvalidInput):
            call(key)
    with pytest.raises(InvalidInput):
        store.put(key, [b"x"])


def test_many_threads_write_at_once(store: ObjectStore) -> None:
    def write(number: int) -> None:
        for round_ in range(20):
            store.put(f"jobs/{number}/{round_}", [bytes([number]) * 1000])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.list("jobs/"))) == 160
    assert whole(store, "jobs/7/19") == b"\7" * 1000


def test_a_store_that_works_is_found_to(store: ObjectStore) -> None:
    store.check()


class TestFilesystem:
    """What only the store on a file system has to hold."""

    def test_a_directory_that_cannot_be_is_said_in_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        store = FilesystemObjectStore(tmp_path / "file")
        for call in (store.check, lambda: store.put("a", [b"x"]), lambda: store.append("a")):
            with pytest.raises(ObjectStoreError, match="could not write"):
                call()

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (tmp_path / BASE).mkdir()
        (tmp_path / BASE / "a").symlink_to(tmp_path / "secret")
        with pytest.raises(ObjectStoreError):
            FilesystemObjectStore(tmp_path / BASE).read("a")

    def test_a_reader_that_stops_half_way_leaves_nothing_open(self, tmp_path: Path) -> None:
        store = FilesystemObjectStore(tmp_path / BASE)
        store.put("a", [b"x" * 1_000_000])
        before = len(os.listdir("/proc/self/fd"))
        chunks = store.read("a")
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]  # a generator
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_put_that_failed_leaves_no_file_behind(self, tmp_path: Path) -> None:
        store = FilesystemObjectStore(tmp_path / BASE)

        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise KeyError

        with pytest.raises(KeyError):
            store.put("a", chunks())
        assert [path for path in (tmp_path / BASE).rglob("*") if path.is_file()] == []
