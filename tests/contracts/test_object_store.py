"""One suite over every object store."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reactorcide.domain.errors import InvalidInput, ObjectChanged, ObjectNotFound, ObjectStoreError
from reactorcide.objects import MAX_KEY_BYTES, MAX_PART_BYTES, MAX_PARTS, ObjectStore
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.objects.memory import MemoryObjectStore

if TYPE_CHECKING:
    from tests.support.s3 import S3Server

BASE = "objects"
PART_BYTES = 8 << 20
"""From here on S3 gets an object in parts."""


@pytest.fixture(scope="module")
def s3_store(s3: "S3Server") -> Iterator[ObjectStore]:
    # Imported late, and made once: both take long.
    from reactorcide.objects.s3 import S3ObjectStore

    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        yield S3ObjectStore(f"s3://{s3.new_bucket()}/a/prefix")


@pytest.fixture(params=["filesystem", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    if request.param == "memory":
        yield MemoryObjectStore()
    elif request.param == "filesystem":
        yield FilesystemObjectStore(tmp_path / BASE)
    else:
        yield request.getfixturevalue("s3_store")
        request.getfixturevalue("s3").empty()


def is_s3(store: ObjectStore) -> bool:
    return store.__class__.__name__ == "S3ObjectStore"


def rounds(store: ObjectStore, number: int) -> int:
    """Return how often to do what is to meet with the same in another thread: requests are slow."""
    return number // 10 if is_s3(store) else number


def whole(store: ObjectStore, key: str) -> bytes:
    return b"".join(store.read(key))


def test_stored_object_is_read_back(store: ObjectStore) -> None:
    assert store.put("a/b", [b"12", b"", b"345"]) == 5
    assert whole(store, "a/b") == b"12345"
    assert store.size("a/b") == 5


@pytest.mark.parametrize("size_bytes", [3, 9 << 20])
def test_only_the_object_that_was_seen_is_replaced(store: ObjectStore, size_bytes: int) -> None:
    if is_s3(store) and size_bytes > PART_BYTES and shutil.which("versitygw") is None:
        pytest.skip("moto does not know the condition of an upload in parts")
    first, second, third = (bytes([number]) * size_bytes for number in range(3))
    assert store.tag("a/b") is None
    assert store.replace("a/b", [first], None) == size_bytes
    seen = store.tag("a/b")
    store.put("a/b", [second])
    for tag in (None, seen):
        with pytest.raises(ObjectChanged, match="another"):
            store.replace("a/b", [third], tag)
        assert whole(store, "a/b") == second
    store.replace("a/b", [third], store.tag("a/b"))
    assert whole(store, "a/b") == third
    store.delete("a/")
    with pytest.raises(ObjectChanged):
        store.replace("a/b", [first], seen)


def test_a_file_becomes_an_object(store: ObjectStore, tmp_path: Path) -> None:
    for content in (b"first" * 100_000, b"", b"second"):
        file = tmp_path / "file"
        file.write_bytes(content)
        store.put_file("a/b", file)
        assert whole(store, "a/b") == content
        assert not file.exists()


def test_a_second_put_replaces_the_first(store: ObjectStore) -> None:
    store.put("a", [b"a longer text"])
    store.put("a", [b"short"])
    assert whole(store, "a") == b"short"


def test_reported_disk_usage_is_at_least_the_sum_of_sizes(store: ObjectStore) -> None:
    assert store.used_bytes("a/") == 0
    store.put("a/b", [bytes(100_000)])
    store.put("a/c/d", [b"12345"])
    assert store.used_bytes("a/") >= 100_005
    store.put("b", [b"x"])
    before_bytes = store.used_bytes("a/")
    store.delete("a/c/")
    assert 100_000 <= store.used_bytes("a/") < before_bytes


def test_partial_object_is_never_visible(store: ObjectStore) -> None:
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


def test_a_missing_key_is_an_error_at_once(store: ObjectStore) -> None:
    for call in (store.read, store.size):
        with pytest.raises(ObjectNotFound):
            call("nope/a")


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


BAD_KEYS = {
    "empty": "",
    "absolute": "/etc/passwd",
    "an empty part": "a//b",
    "out": "../a",
    "out in the middle": "a/../../b",
    "out at the end": "a/..",
    "here": "./a",
    "here at the end": "a/.",
    "a slash at the end": "a/",
    "NUL": "a\0b",
    "where halves are": ".tmp/x",
    "no Unicode": "a/\udcff",
    "a long part": "a/" + "x" * (MAX_PART_BYTES + 1),
    "a long part in bytes": "ü" * MAX_PART_BYTES,
    "long": "/".join(["x" * 200] * 11),
    "deep": "x/" * MAX_PARTS + "x",
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_key_outside_of_the_store_is_refused(store: ObjectStore, tmp_path: Path, key: str) -> None:
    for call in (store.read, store.size):
        with pytest.raises(InvalidInput):
            call(key)
    with pytest.raises(InvalidInput):
        store.put(key, [b"x"])
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InvalidInput):
        store.put_file(key, file)
    assert file.exists()


ODD_KEYS = [
    *("...", "..a/b..", "a b", "-rf", "~", "a\\b", "a\nb", "*", "%2e%2e%2f", "$(x)", ".tmp2/x", "a/.tmp"),
    # The second is the first in another form, and another key.
    *("\u00e9", "e\u0301", "仕事/\U0001f680", "\u202ereversed", "\u2024\u2024/x", "x" * MAX_PART_BYTES),
    "/".join("x" * (MAX_PARTS - 1)),
    "/".join(["y" * 203] * 10),
]


def test_unusual_keys_are_ordinary_keys(store: ObjectStore) -> None:
    # S3's keys are shorter. The server of the tests knows no line breaks in them; S3 does.
    keys = [key for key in ODD_KEYS if not is_s3(store) or (len(key) < 900 and "\n" not in key)]
    for key in keys:
        store.put(f"odd/{key}", [key.encode()])
    assert {item.key for item in store.list("odd/")} == {f"odd/{key}" for key in keys}
    for key in keys:
        assert whole(store, f"odd/{key}") == key.encode()


def test_prefix_of_a_key_is_not_an_object(store: ObjectStore) -> None:
    store.put("a/b/c", [b"x"])
    for call in (store.read, store.size):
        for key in ("a", "a/b", "a/b/c/d"):
            with pytest.raises(ObjectNotFound):
                call(key)
    assert [item.key for item in store.list("a/")] == ["a/b/c"]


def test_deepest_and_longest_keys_are_deleted_by_prefix(store: ObjectStore) -> None:
    # S3's are shorter, with the prefix.
    longest = ["z" * 201] * 5 if is_s3(store) else ["z" * 203] * 10
    if is_s3(store):
        with pytest.raises(InvalidInput, match="too long for an object of S3"):
            store.put("/".join(["odd", "zz", *longest]), [b"x"])
    else:
        assert len("/".join(["odd", *longest])) > MAX_KEY_BYTES - 8
    for parts in (["x"] * (MAX_PARTS - 1), longest):
        store.put("/".join(["odd", *parts]), [b"x"])
    store.delete("odd/")
    assert list(store.list("odd/")) == []


def test_reader_during_a_replacement_sees_one_version(store: ObjectStore) -> None:
    size = 600_000
    store.put("a", [b"0" * size])
    done = threading.Event()

    def write() -> None:
        for number in range(rounds(store, 60)):
            store.put("a", [str(number % 10).encode() * (size // 2)] * 2)
        done.set()

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while not done.is_set():
        data = whole(store, "a")
        assert (len(data), len(set(data))) == (size, 1)
    for writer in writers:
        writer.join()


def test_concurrent_deletes_of_a_prefix_with_writes_do_not_fail(store: ObjectStore) -> None:
    failures: list[Exception] = []

    def write() -> None:
        for number in range(rounds(store, 100)):
            try:
                store.put(f"a/{number % 7}/{number}", [b"x"])
            except ObjectStoreError:
                # The directory was removed in between, which is an error.
                continue
            except Exception as exc:
                failures.append(exc)

    def delete() -> None:
        for _ in range(rounds(store, 100)):
            try:
                store.delete("a/")
            except ObjectStoreError:
                continue
            except Exception as exc:
                failures.append(exc)

    threads = [threading.Thread(target=target) for target in (write, delete, delete)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store.delete("a/")
    assert list(store.list("a/")) == []


def test_many_threads_write_at_once(store: ObjectStore) -> None:
    def write(number: int) -> None:
        for round_ in range(rounds(store, 20)):
            store.put(f"jobs/{number}/{round_}", [bytes([number]) * 1000])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.list("jobs/"))) == 8 * rounds(store, 20)
    assert whole(store, "jobs/7/1") == b"\7" * 1000


def test_check_of_a_working_store_passes(store: ObjectStore) -> None:
    store.check()


class TestFilesystem:
    """What only the store on a file system has to hold."""

    def test_key_above_or_below_an_object_is_refused(self, tmp_path: Path) -> None:
        store = FilesystemObjectStore(tmp_path / BASE)
        store.put("a/b/c", [b"x"])
        file = tmp_path / "file"
        file.touch()
        for key in ("a/b", "a/b/c/d"):
            with pytest.raises(ObjectStoreError):
                store.put(key, [b"x"])
            with pytest.raises(ObjectStoreError):
                store.put_file(key, file)
        assert file.exists()
        assert [item.key for item in store.list("a/")] == ["a/b/c"]

    def test_a_file_of_another_file_system_is_copied(self, tmp_path: Path) -> None:
        store = FilesystemObjectStore(tmp_path / BASE)
        store.put("a", [b"old"])
        with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
            assert os.stat(elsewhere).st_dev != os.stat(tmp_path).st_dev
            file = Path(elsewhere, "file")
            file.write_bytes(b"x" * 1_000_000)
            store.put_file("a", file)
            assert not file.exists()
        assert whole(store, "a") == b"x" * 1_000_000

    def test_an_unusable_directory_is_an_error_of_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        store = FilesystemObjectStore(tmp_path / "file")
        (tmp_path / "log").touch()
        for call in (
            store.check,
            lambda: store.put("a", [b"x"]),
            lambda: store.put_file("a", tmp_path / "log"),
        ):
            with pytest.raises(ObjectStoreError, match="could not write"):
                call()

    @pytest.mark.parametrize("size_bytes", [100, 1 << 20])
    def test_write_on_a_full_disk_is_a_store_error(self, tmp_path: Path, size_bytes: int) -> None:
        store = FilesystemObjectStore(tmp_path / BASE)
        store.put("a", [b"old"])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            with pytest.raises(ObjectStoreError, match="could not write a: File too large"):
                store.put("a", [b"x" * size_bytes])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert whole(store, "a") == b"old"
        assert list((tmp_path / BASE / ".tmp").iterdir()) == []

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

    def test_unused_reader_leaves_nothing_open(self, tmp_path: Path) -> None:
        store = FilesystemObjectStore(tmp_path / BASE)
        store.put("a", [b"x"])
        before = len(os.listdir("/proc/self/fd"))
        store.read("a").close()  # type: ignore[attr-defined]  # a generator
        assert len(os.listdir("/proc/self/fd")) == before

    def test_no_planted_link_leads_out(self, tmp_path: Path) -> None:
        outside, base = tmp_path / "outside", tmp_path / BASE
        (outside / "sub").mkdir(parents=True)
        (outside / "secret").write_text("secret")
        (base / "jobs").mkdir(parents=True)
        (base / "jobs" / "1").symlink_to(outside)
        (base / "way").symlink_to("..")
        (base / "file").symlink_to(outside / "secret")
        (base / "hanging").symlink_to(outside / "new")
        store = FilesystemObjectStore(base)
        file = tmp_path / "log"
        file.touch()
        for key in ("jobs/1/secret", "way/outside/secret", "jobs/1/sub/x"):
            for call in (store.read, store.size):
                with pytest.raises(ObjectNotFound):
                    call(key)
            with pytest.raises(ObjectStoreError):
                store.put(key, [b"x"])
            with pytest.raises(ObjectStoreError):
                store.put_file(key, file)
        assert list(store.list("jobs/")) == list(store.list("jobs/1/")) == list(store.list("way/")) == []
        store.delete("jobs/1/sub/")
        store.delete("jobs/")
        with pytest.raises(ObjectStoreError):
            store.delete("way/")
        # A link in an object's own place is replaced.
        store.put("file", [b"new"])
        assert not (base / "file").is_symlink()
        assert sorted(path.name for path in outside.iterdir()) == ["secret", "sub"]
        assert (outside / "secret").read_text() == "secret"

    def test_link_in_place_of_the_temporary_directory_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / BASE).mkdir()
        (tmp_path / BASE / ".tmp").symlink_to(tmp_path / "outside")
        store = FilesystemObjectStore(tmp_path / BASE)
        for call in (store.check, lambda: store.put("a", [b"x"]), store.remove_leftovers):
            with pytest.raises(ObjectStoreError):
                call()
        assert list((tmp_path / "outside").iterdir()) == []

    def test_a_pipe_does_not_hold_up_a_reader(self, tmp_path: Path) -> None:
        (tmp_path / BASE).mkdir()
        os.mkfifo(tmp_path / BASE / "a")
        store = FilesystemObjectStore(tmp_path / BASE)
        with pytest.raises(ObjectNotFound):
            store.read("a")
        assert list(store.list("nothing/")) == []

    def test_killed_writer_leaves_the_old_object_whole(self, tmp_path: Path) -> None:
        store = FilesystemObjectStore(tmp_path / BASE)
        store.put("jobs/1/old", [b"as it was"])
        script = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from reactorcide.objects.filesystem import FilesystemObjectStore\n"
            "store = FilesystemObjectStore(Path(sys.argv[1]))\n"
            "def chunks():\n"
            "    for _ in range(5):\n"
            "        yield b'half' * 100_000\n"
            "    print('half-way', flush=True)\n"
            "    time.sleep(600)\n"
            "store.put(sys.argv[2], chunks())\n"
        )
        for key in ("jobs/1/old", "jobs/1/new"):
            with subprocess.Popen(
                [sys.executable, "-c", script, tmp_path / BASE, key], stdout=subprocess.PIPE
            ) as writer:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"half-way\n"
                writer.kill()
                assert writer.wait(10) == -9
        assert whole(store, "jobs/1/old") == b"as it was"
        assert [item.key for item in store.list("jobs/")] == ["jobs/1/old"]
        assert len(list((tmp_path / BASE / ".tmp").iterdir())) == 2
        store.remove_leftovers()
        store.remove_leftovers()
        files = [path for path in (tmp_path / BASE).rglob("*") if path.is_file()]
        assert [path.name for path in files] == ["old"]

    def test_put_syncs_the_object_before_the_rename_and_the_directory_before_returning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []

        def recorded(name: str) -> None:
            real = getattr(os, name)

            def call(*arguments: object, **options: object) -> object:
                target = arguments[0]
                place = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else ""
                calls.append(f"{name} {place.removeprefix(str(tmp_path / BASE))}".strip())
                return real(*arguments, **options)

            monkeypatch.setattr(os, name, call)

        for name in ("fdatasync", "fsync", "replace"):
            recorded(name)
        store = FilesystemObjectStore(tmp_path / BASE)
        store.put("a/b/c", [b"x"])
        synced, *rest = [call for call in calls if not call.startswith("fsync") or "/" in call]
        assert synced.startswith("fdatasync /.tmp/")
        # The new directories, too, are there for good.
        assert rest == ["fsync /a", "replace", "fsync /a/b"]
        calls.clear()
        (tmp_path / "file").touch()
        store.put_file("a/b/d", tmp_path / "file")
        assert calls == ["replace", "fsync /a/b"]

    def test_a_put_that_failed_leaves_no_file_behind(self, tmp_path: Path) -> None:
        store = FilesystemObjectStore(tmp_path / BASE)

        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise KeyError

        with pytest.raises(KeyError):
            store.put("a", chunks())
        assert [path for path in (tmp_path / BASE).rglob("*") if path.is_file()] == []
