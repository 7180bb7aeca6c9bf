"""Uploaded sources: what an upload may hold, who may use it, how long it is stored."""

import contextlib
import gzip
import hashlib
import io
import random
import tarfile
import tempfile
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reactorcide.domain.accounts import Role, User
from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import Busy, Forbidden, InvalidInput, JobFailed, NotFound, TooLarge
from reactorcide.domain.jobs import Job, JobStatus, Outcome, artifacts_prefix, attempt_prefix
from reactorcide.jobs import JobContext, delete, ending, read, sources
from reactorcide.jobs.hints import WorkerHints
from reactorcide.jobs.sealing import Sealing
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.logs.local import LocalLogStore
from reactorcide.metrics import Metrics
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.sources.repack import repack
from tests.support.store import chosen_database, new_store
from tests.support.tars import header, member, read_all, tar, tar_gz

MAX_BYTES = 10 << 20


@contextmanager
def peak_below(max_bytes: int) -> Iterator[None]:
    """Fail where the body uses more memory than that."""
    tracemalloc.start()
    try:
        yield
    finally:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < max_bytes


def user(name: str, role: Role = Role.USER) -> User:
    return User(user_id=name, username=name, email=None, role=role, is_active=True, created_at_ms=0)


ANN, BOB, ADMIN = user("ann"), user("bob"), user("admin", Role.ADMIN)


@dataclass
class Shelf:
    """A store of sources, without a worker."""

    context: JobContext

    def add(self, data: bytes, who: User = ANN, **options: Any) -> str:
        source, _ = sources.add(self.context, who, iter([data]), **{"max_bytes": MAX_BYTES} | options)
        return source.source_id

    @property
    def objects(self) -> list[str]:
        return [item.key for item in self.context.objects.list("sources/")]

    def job(self, status: JobStatus = JobStatus.QUEUED, who: User = ANN, **fields: Any) -> Job:
        """Put a job into the database as it stands."""
        definition = JobDefinition(
            name="n", job_command="true", source_type="copy", runner_image="alpine", **fields
        )
        at_ms = now_ms()
        job = Job(
            job_id=new_id(),
            user_id=who.user_id,
            definition=definition,
            status=status,
            created_at_ms=at_ms,
            updated_at_ms=at_ms,
        )
        self.context.store.jobs.add(job, next_submit_at_ms=at_ms)
        return job

    def put(self, definition: JobDefinition) -> bytes:
        """Return the tar that a container would get."""
        entries = sources.entries(self.context, definition)
        assert entries is not None
        return b"".join(repack(entries, prefix="/job/src", uid=1000, gid=100, check=lambda: None))


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    database = chosen_database(tmp_path / "jobs.db")
    unused: Any = None
    objects = FilesystemObjectStore(tmp_path / "objects")
    store, logs = new_store(database), LocalLogStore(tmp_path / "logs", objects)
    yield Shelf(
        JobContext(
            store=store,
            objects=objects,
            logs=logs,
            notifier=LocalNotifier(),
            metrics=Metrics(),
            corndogs=unused,
            rules=unused,
            hints=WorkerHints(),
            sealing=Sealing(store, logs, objects),
        )
    )
    database.close()


NUL_PATH = b"12 path=a\0b\n" + bytes(500)
GOOD = tar_gz(
    member("./", kind=tarfile.DIRTYPE, mode=0o700),
    member("./run", b"#!/bin/sh", mode=0o755, mtime=1_700_000_000),
    member("deep/er/file", b"x" * 1000, uid=5, gid=5),
    member("dir", kind=tarfile.DIRTYPE, mode=0o750),
    member("out", kind=tarfile.SYMTYPE, target="../../../etc/passwd"),
    member("again", kind=tarfile.LNKTYPE, target="./run"),
)


def test_source_is_identified_by_its_digest(shelf: Shelf) -> None:
    source, created = sources.add(shelf.context, ANN, iter([GOOD]), max_bytes=MAX_BYTES)
    assert (source.source_id, source.size_bytes, source.files, created) == (
        *(hashlib.sha256(GOOD).hexdigest(), len(GOOD)),
        *(2, True),
    )
    assert sources.add(shelf.context, ANN, iter([GOOD]), max_bytes=MAX_BYTES) == (source, False)
    assert shelf.objects == [source.object_key]
    assert b"".join(shelf.context.objects.read(source.object_key)) == GOOD


def test_source_tar_has_the_owner_and_prefix(shelf: Shelf) -> None:
    source_id = shelf.add(GOOD)
    members = read_all(shelf.put(shelf.job(source_id=source_id).definition))
    assert {name: (info.type, info.mode, info.linkname) for name, info in members.items()} == {
        "job/src": (tarfile.DIRTYPE, 0o755, ""),
        "job/src/run": (tarfile.REGTYPE, 0o755, ""),
        # Directories that the tar does not name are added; the engine would create them as root.
        "job/src/deep": (tarfile.DIRTYPE, 0o755, ""),
        "job/src/deep/er": (tarfile.DIRTYPE, 0o755, ""),
        "job/src/deep/er/file": (tarfile.REGTYPE, 0o644, ""),
        "job/src/dir": (tarfile.DIRTYPE, 0o750, ""),
        "job/src/out": (tarfile.SYMTYPE, 0o644, "../../../etc/passwd"),
        "job/src/again": (tarfile.LNKTYPE, 0o644, "job/src/run"),
    }
    assert {(info.uid, info.gid) for info in members.values()} == {(1000, 100)}
    assert members["job/src/run"].mtime == 1_700_000_000


def test_source_is_never_unpacked_on_this_host(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    entries = sources.entries(shelf.context, shelf.job(source_id=shelf.add(GOOD)).definition)
    assert entries is not None
    files: set[str] = set()
    for _ in repack(entries, prefix="/job/src", uid=0, gid=0, check=lambda: None):
        files |= {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in files if not name.startswith("jobs.db")} == {"source.tar.gz"}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "tar.gz"),
        (b"no gzip at all", "not gzip"),
        (tar(member("a")), "not gzip"),
        (GOOD[:-20], "ends in the middle"),
        (tar_gz(member("../a", b"x")), "leads out"),
        (tar_gz(member("a/../../b", b"x")), "leads out"),
        (tar_gz(member("/etc/passwd", b"x")), "absolute"),
        (tar_gz(member("..", kind=tarfile.DIRTYPE)), "leads out"),
        (tar_gz(member("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)), "neither a file"),
        (tar_gz(member("disk", kind=tarfile.BLKTYPE)), "neither a file"),
        (tar_gz(member("pipe", kind=tarfile.FIFOTYPE)), "neither a file"),
        (tar_gz(member("hard", kind=tarfile.LNKTYPE, target="/etc/passwd")), "hard link"),
        (tar_gz(member("hard", kind=tarfile.LNKTYPE, target="../../x")), "hard link"),
        (
            tar_gz(
                member("link", kind=tarfile.SYMTYPE, target="/etc/passwd"),
                member("hard", kind=tarfile.LNKTYPE, target="link"),
            ),
            "hard link",
        ),
        # Written through a link: it would lead out wherever this is unpacked.
        (
            tar_gz(member("link", kind=tarfile.SYMTYPE, target="/etc"), member("link/passwd", b"x")),
            "is a file or a link",
        ),
        (
            tar_gz(member("a", kind=tarfile.SYMTYPE, target="/etc"), member("./a", kind=tarfile.DIRTYPE)),
            "twice",
        ),
        (tar_gz(member("a", b"1"), member("./a", b"2")), "twice"),
        (tar_gz(member("x" * 256)), "more than 255 bytes"),
        (tar_gz(member("é" * 128)), "more than 255 bytes"),
        (tar_gz(member("/".join("x" * 121))), "too deep"),
        (tar_gz(member("/".join(["x" * 99] * 11))), "longer than 1024 bytes"),
        (tar_gz(member("./" * 513 + "x")), "longer than 1024 bytes"),
        (tar_gz(member("link", kind=tarfile.SYMTYPE, target="x" * 1025)), "longer than 1024 bytes"),
        (gzip.compress(header("x", kind=tarfile.XHDTYPE, size=12) + NUL_PATH + tar(member("x"))), "NUL"),
        (tar_gz(member("x" * (1 << 16))), "more than 64 KiB"),
    ],
)
def test_malformed_source_is_refused_and_removed(shelf: Shelf, data: bytes, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        shelf.add(data)
    assert shelf.objects == []
    assert shelf.context.store.sources.object_keys() == set()


def test_size_limits_apply_to_packed_and_unpacked_sources(shelf: Shelf) -> None:
    noise = tar_gz(member("noise", random.Random(1).randbytes(3000)))  # noqa: S311  # a test's
    with pytest.raises(TooLarge, match=r"larger than 2 KiB \(--max-source-bytes\)"):
        shelf.add(noise, max_bytes=2048)
    bomb = tar_gz(member("bomb", bytes(20 << 20)))
    assert len(bomb) < 100_000
    with pytest.raises(TooLarge, match=r"larger than 10 MiB when unpacked \(--max-source-bytes\)"):
        shelf.add(bomb)
    assert shelf.objects == []


def test_compression_bomb_takes_little_memory(shelf: Shelf) -> None:
    def packed() -> Iterator[bytes]:
        compressor = zlib.compressobj(9, wbits=31)
        yield compressor.compress(header("bomb", size=60 << 20))
        for _ in range(60):
            yield compressor.compress(bytes(1 << 20))
        yield compressor.compress(bytes(1024)) + compressor.flush()

    data = b"".join(packed())
    with pytest.raises(TooLarge), peak_below(4 << 20):
        shelf.add(data, max_bytes=50 << 20)


def test_deep_path_takes_little_memory(shelf: Shelf) -> None:
    # 198 bytes when packed; each directory above was remembered by its whole path.
    data = tar_gz(member("/".join("x" * 30_000)))
    with pytest.raises(InvalidInput, match="longer than 1024 bytes"), peak_below(4 << 20):
        shelf.add(data)


@pytest.mark.slow
def test_many_of_the_longest_paths_take_little_memory(shelf: Shelf) -> None:
    # Each with as many directories of its own as it may have.
    paths = ("/".join([f"{number:03}" + "x" * 5] * 113) for number in range(300))
    data = tar_gz(*(member(path) for path in paths))
    with peak_below(16 << 20):
        source_id = shelf.add(data)
    entries = sources.entries(shelf.context, shelf.job(source_id=source_id).definition)
    assert entries is not None
    with peak_below(16 << 20):
        for _ in repack(entries, prefix="/job/src", uid=0, gid=0, check=lambda: None):
            pass


def test_concurrent_checks_are_limited(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of one may take 50 MB, and 32 may be uploaded at once."""
    two, three = threading.Barrier(2), threading.Barrier(3)
    check = sources._count_files

    def together(packed: Iterator[bytes], max_bytes: int) -> int:
        two.wait(20)
        with contextlib.suppress(threading.BrokenBarrierError):
            three.wait(1)
        return check(packed, max_bytes)

    monkeypatch.setattr(sources, "_count_files", together)
    with ThreadPoolExecutor(4) as pool:
        packed = [tar_gz(member(f"file{number}")) for number in range(4)]
        assert len(set(pool.map(shelf.add, packed))) == 4
    assert three.broken


def test_slow_checks_of_one_user_leave_a_slot_to_other_users(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_CHECK_WAIT_S", 0.1)
    slot = partial(shelf.context.source_checks.hold, ANN.user_id, "", timeout_s=1)
    with slot(), slot():
        shelf.add(tar_gz(member("file")), BOB)
        with pytest.raises(Busy):
            shelf.add(tar_gz(member("file")))
    shelf.add(tar_gz(member("file")))


def test_implicit_directories_count(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MAX_PATHS", 1000)
    shelf.add(tar_gz(*(member(f"{number}/" + "d/" * 98 + "file") for number in range(10))))
    with pytest.raises(InvalidInput, match="at most 1000 files, directories and links"):
        shelf.add(tar_gz(*(member(f"{number}/" + "d/" * 99 + "file") for number in range(10))))


def test_truncation_after_the_last_file_is_detected(shelf: Shelf) -> None:
    # Beyond what is read ahead, for a tar says where it ends.
    data = gzip.compress(tar(member("a")) + bytes(1 << 20), 0)
    shelf.add(data)
    with pytest.raises(InvalidInput, match="ends in the middle"):
        shelf.add(data[:-10])


def test_interrupted_upload_leaves_nothing_behind(shelf: Shelf) -> None:
    def half() -> Iterator[bytes]:
        yield GOOD[:50]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        sources.add(shelf.context, ANN, half(), max_bytes=MAX_BYTES)
    assert shelf.objects == []


def test_source_is_usable_by_its_uploaders_only(shelf: Shelf) -> None:
    source_id = shelf.add(GOOD)
    definition = shelf.job(source_id=source_id).definition
    sources.check(shelf.context, ANN, definition)
    sources.check(shelf.context, ADMIN, definition)
    with pytest.raises(InvalidInput, match="you have uploaded no source") as raised:
        sources.check(shelf.context, BOB, definition)
    assert raised.value.field == "source_id"
    with pytest.raises(NotFound):
        sources.get(shelf.context, BOB, source_id)
    source, is_new = sources.add(shelf.context, BOB, iter([GOOD]), max_bytes=MAX_BYTES)
    assert (source.source_id, is_new) == (source_id, True)
    sources.check(shelf.context, BOB, definition)
    assert sources.get(shelf.context, BOB, source_id) == sources.get(shelf.context, ANN, source_id)
    assert len(shelf.objects) == 1


def test_upload_of_a_known_source_is_still_checked(shelf: Shelf) -> None:
    # Or the time that it takes would tell.
    data = tar_gz(member("noise", random.Random(1).randbytes(3000)))  # noqa: S311  # a test's
    for who in (ANN, BOB):
        with pytest.raises(TooLarge, match="when unpacked"):
            shelf.add(data, who, max_bytes=4000)
        shelf.add(data, who)
    # Whoever has uploaded it does not wait.
    for who in (ANN, BOB):
        shelf.add(data, who, max_bytes=4000)
    assert len(shelf.objects) == 1


class TestUnused:
    """Removing unused sources."""

    def test_source_needed_by_a_job_is_retained(self, shelf: Shelf) -> None:
        needed, unneeded, never = (shelf.add(tar_gz(member(name))) for name in "abc")
        for status in (JobStatus.SUBMITTED, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUBMIT_FAILED):
            shelf.job(status, source_id=needed)
        for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED):
            shelf.job(status, source_id=unneeded)
        shelf.job()
        assert sources.remove_unused(shelf.context, before_ms=now_ms() - 60_000) == []
        removed = sources.remove_unused(shelf.context, before_ms=now_ms() + 1)
        assert {source.source_id for source in removed} == {unneeded, never}
        assert shelf.objects == [sources.get(shelf.context, ANN, needed).object_key]
        assert shelf.context.store.sources.get(unneeded) is None
        # It is as if it had never been: whoever uploads it again has it, nobody else.
        shelf.add(tar_gz(member("b")), BOB)
        with pytest.raises(NotFound):
            sources.get(shelf.context, ANN, unneeded)

    def test_recently_used_source_is_retained(self, shelf: Shelf) -> None:
        source_id = shelf.add(GOOD)
        definition = shelf.job(JobStatus.COMPLETED, source_id=source_id).definition
        before_ms = now_ms() + 1
        while now_ms() <= before_ms:
            pass
        # As submitting a job does.
        sources.check(shelf.context, ANN, definition)
        assert sources.remove_unused(shelf.context, before_ms=before_ms) == []

    def test_use_by_others_does_not_retain_the_right_to_a_source(self, shelf: Shelf) -> None:
        source_id = shelf.add(GOOD)
        shelf.add(GOOD, BOB)
        shelf.job(JobStatus.QUEUED, source_id=source_id)
        other_id = shelf.add(tar_gz(member("other")))
        shelf.add(tar_gz(member("other")), BOB)
        before_ms = now_ms() + 1
        while now_ms() <= before_ms:
            pass
        for used in (source_id, other_id):
            sources.check(shelf.context, BOB, shelf.job(JobStatus.COMPLETED, source_id=used).definition)
        assert sources.remove_unused(shelf.context, before_ms=before_ms) == []
        # A job of hers still needs the one; the other is hers no more, as if Bob had never had it.
        assert sources.get(shelf.context, ANN, source_id)
        with pytest.raises(NotFound):
            sources.get(shelf.context, ANN, other_id)
        assert sources.get(shelf.context, BOB, other_id)

    def test_missing_source_fails_the_job_with_a_clear_error(self, shelf: Shelf) -> None:
        source_id = shelf.add(GOOD)
        definition = shelf.job(JobStatus.COMPLETED, source_id=source_id).definition
        entries = sources.entries(shelf.context, definition)
        assert entries is not None
        sources.remove_unused(shelf.context, before_ms=now_ms() + 1)
        with pytest.raises(JobFailed, match="no longer stored"):
            list(entries)
        with pytest.raises(JobFailed, match="no longer stored"):
            sources.entries(shelf.context, definition)

    def test_the_files_of_a_killed_upload_are_removed(self, shelf: Shelf) -> None:
        source_id = shelf.add(GOOD)
        shelf.context.objects.put("sources/half/source.tar.gz", [b"x"])
        sources.remove_orphans(shelf.context)
        assert shelf.objects == [sources.get(shelf.context, ANN, source_id).object_key]
        sources.remove_orphans(shelf.context)


def test_damaged_source_fails_the_job(shelf: Shelf) -> None:
    source = sources.get(shelf.context, ANN, shelf.add(GOOD))
    shelf.context.objects.put(source.object_key, [GOOD[:60]])
    with pytest.raises(JobFailed, match="is damaged"):
        shelf.put(shelf.job(source_id=source.source_id).definition)


class TestArtifacts:
    """The artifacts of one job as the source of another."""

    @pytest.fixture
    def producer(self, shelf: Shelf) -> Job:
        """A job that runs and has stored two artifacts."""
        job = shelf.job(JobStatus.RUNNING)
        items = []
        for path, data, is_executable in (("bin/tool", b"binary", True), ("notes", b"text", False)):
            shelf.context.objects.put(artifacts_prefix(job.job_id, 1) + path, [data])
            items.append(Artifact(path, len(data), "", is_executable=is_executable))
        read.save_artifact_listing(shelf.context, job, items)
        return job

    def end(self, shelf: Shelf, job: Job) -> None:
        key = artifacts_prefix(job.job_id, 1)
        ending.finish(shelf.context, job, Outcome(exit_code=0, error=None, artifacts_object_key=key))

    def test_artifact_source_has_executable_bits(self, shelf: Shelf, producer: Job) -> None:
        self.end(shelf, producer)
        data = shelf.put(shelf.job(source_job_id=producer.job_id).definition)
        assert {name: info.mode for name, info in read_all(data).items() if info.isreg()} == {
            "job/src/bin/tool": 0o755,
            "job/src/notes": 0o644,
        }
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            file = archive.extractfile("job/src/bin/tool")
            assert file is not None
            assert file.read() == b"binary"

    def test_artifacts_of_a_running_job_are_refused_as_a_source(self, shelf: Shelf, producer: Job) -> None:
        definition = shelf.job(source_job_id=producer.job_id).definition
        sources.check(shelf.context, ANN, definition)
        with pytest.raises(JobFailed, match=f"job {producer.job_id}, .* has not ended: it is running"):
            sources.entries(shelf.context, definition)

    def test_job_without_artifacts_is_refused_as_a_source(self, shelf: Shelf) -> None:
        empty = shelf.job(JobStatus.COMPLETED)
        with pytest.raises(JobFailed, match="has no artifacts"):
            sources.entries(shelf.context, shelf.job(source_job_id=empty.job_id).definition)

    def test_lost_artifact_listing_is_an_error(self, shelf: Shelf, producer: Job, tmp_path: Path) -> None:
        self.end(shelf, producer)
        (tmp_path / "objects" / attempt_prefix(producer.job_id, 1) / "artifacts.json").unlink()
        with pytest.raises(
            JobFailed, match=f"the artifacts of job {producer.job_id}, .* are no longer stored"
        ):
            sources.entries(shelf.context, shelf.job(source_job_id=producer.job_id).definition)

    def test_deleted_job_as_a_source_is_reported(self, shelf: Shelf, producer: Job) -> None:
        self.end(shelf, producer)
        definition = shelf.job(source_job_id=producer.job_id).definition
        entries = sources.entries(shelf.context, definition)
        assert entries is not None
        delete.delete(shelf.context, ANN, producer.job_id)
        shelf.context.sealing.do_waiting()
        with pytest.raises(JobFailed, match="has been deleted"):
            list(entries)
        with pytest.raises(JobFailed, match="has been deleted"):
            sources.entries(shelf.context, definition)

    def test_job_of_another_user_is_refused_as_a_source(self, shelf: Shelf, producer: Job) -> None:
        definition = shelf.job(source_job_id=producer.job_id).definition
        with pytest.raises(Forbidden):
            sources.check(shelf.context, BOB, definition)
        sources.check(shelf.context, ADMIN, definition)
        unknown = shelf.job(source_job_id="unknown").definition
        with pytest.raises(NotFound):
            sources.check(shelf.context, ANN, unknown)
