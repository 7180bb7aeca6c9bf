"""Which files of an artifacts directory are stored, and what happens with a tar that is none."""

import hashlib
import random
import tarfile
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import EngineUnavailable, JobInterrupted, NotFound
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.jobs import JobContext, read
from reactorcide.jobs.hints import WorkerHints
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.logs.local import LocalLogStore
from reactorcide.logs.writer import LogWriter
from reactorcide.metrics import Metrics
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.worker.attempt.artifacts import CollectingEnded, store_artifacts
from reactorcide.worker.local import LocalPort
from tests.support.tars import chunked, header, member, tar

GLOBS = [["**"], ["*.txt", "a/**"], ["**/x"]]


def a_context(base: Path) -> JobContext:
    """Return a context for what touches objects only."""
    unused: Any = None
    objects = FilesystemObjectStore(base / "objects")
    return JobContext(
        store=unused,
        objects=objects,
        logs=LocalLogStore(base / "logs", objects),
        notifier=LocalNotifier(),
        metrics=Metrics(),
        corndogs=unused,
        rules=unused,
        hints=WorkerHints(),
        sealing=unused,
    )


def a_job(**fields: Any) -> Job:
    definition = JobDefinition(
        name="n", job_command="true", source_type="copy", runner_image="alpine", **fields
    )
    return Job(
        job_id="j",
        user_id="u",
        definition=definition,
        status=JobStatus.RUNNING,
        created_at_ms=0,
        updated_at_ms=0,
        artifacts_object_key="as after the end",
    )


class Collection:
    """What became of a tar."""

    def __init__(
        self, base: Path, data: Iterator[bytes] | Callable[[], Iterable[bytes]], **options: Any
    ) -> None:
        self.context = a_context(base)
        limits = {name: options.pop(name, 10**9) for name in ("max_bytes", "max_files")}
        check = options.pop("check", lambda: None)
        self.job = a_job(**options)
        self.opened = 0

        def open_tar() -> Generator[bytes, None, None]:
            self.opened += 1
            yield from data() if callable(data) else data

        log = LogWriter(self.context.logs, self.context.notifier, "j", 1)
        try:
            self.prefix = store_artifacts(
                LocalPort(self.context, lease_s=60), self.job, open_tar, log.say, check=check, **limits
            )
        finally:
            log.close()
            self.context.logs.seal("jobs/j/1/")

    @property
    def log(self) -> str:
        return b"".join(self.context.objects.read("jobs/j/1/log")).decode()

    @property
    def paths(self) -> list[str]:
        return [item.path for item in read.artifacts(self.context, self.job).artifacts]

    @property
    def truncated(self) -> bool:
        return read.artifacts(self.context, self.job).truncated

    @property
    def stored(self) -> set[str]:
        return {
            item.key.removeprefix("jobs/j/1/artifacts/")
            for item in self.context.objects.list("jobs/j/1/artifacts/")
        }


def collected(base: Path, *members: tuple[tarfile.TarInfo, bytes], **options: Any) -> Collection:
    top = member("artifacts", kind=tarfile.DIRTYPE)
    named = [(info, data) for info, data in members]
    for info, _ in named:
        info.name = f"artifacts/{info.name}"
    return Collection(base, lambda: [tar(top, *named)], **options)


def test_an_artifact_has_size_digest_and_executable_bit(tmp_path: Path) -> None:
    collection = collected(tmp_path, member("b", b"text"), member("a/run", b"#!/bin/sh", mode=0o755))
    assert collection.prefix == "jobs/j/1/artifacts/"
    assert not collection.truncated
    assert read.artifacts(collection.context, collection.job).artifacts == [
        Artifact("a/run", 9, hashlib.sha256(b"#!/bin/sh").hexdigest(), is_executable=True),
        Artifact("b", 4, hashlib.sha256(b"text").hexdigest(), is_executable=False),
    ]


def test_only_files_that_match_the_globs_are_stored(tmp_path: Path) -> None:
    members = [member(name) for name in ("a.xml", "a.txt", "sub/b.xml", "sub/deep/c.xml")]
    collection = collected(
        tmp_path, *members, member("link", kind=tarfile.SYMTYPE, target="x"), artifacts=["*.xml", "sub/*"]
    )
    assert collection.paths == ["a.xml", "sub/b.xml"]
    assert collection.stored == {"a.xml", "sub/b.xml"}
    assert collection.log == ""


def test_no_match_is_logged(tmp_path: Path) -> None:
    collection = collected(tmp_path, member("a.xml"), artifacts=["*.jar"])
    assert collection.prefix is None
    assert "no file in /job/artifacts matches" in collection.log


def test_empty_globs_store_nothing(tmp_path: Path) -> None:
    assert collected(tmp_path, member("a"), artifacts=[]).stored == set()


@pytest.mark.parametrize(
    ("limits", "paths", "problem"),
    [
        ({"max_files": 2}, ["a", "b"], "there are more than 2 (--max-artifacts)"),
        ({"max_bytes": 12 << 10}, ["a"], "larger than 12 KiB (--max-artifact-bytes)"),
        # The third one has a byte, which takes more.
        ({"max_bytes": 19 << 10}, ["a", "b"], "larger than 19 KiB (--max-artifact-bytes)"),
        ({"max_bytes": 4 << 10}, [], "larger than 4 KiB (--max-artifact-bytes)"),
        ({"max_files": 0}, [], "(--max-artifacts)"),
        ({"max_files": 3, "max_bytes": 20 << 10}, ["a", "b", "c"], None),
    ],
)
def test_artifacts_above_a_limit_are_skipped_and_reported(
    tmp_path: Path, limits: dict[str, int], paths: list[str], problem: str | None
) -> None:
    large = bytes(8 << 10)
    collection = collected(tmp_path, member("a", large), member("b", large), member("c", b"9"), **limits)
    assert collection.paths == paths
    assert collection.stored == set(paths)
    assert collection.truncated is (problem is not None)
    if problem is None:
        assert collection.log == ""
    else:
        assert problem in collection.log
        assert collection.log.count("\n") == 1


def deep_paths() -> list[str]:
    return ["/".join([str(number), *["d"] * 100, "b"]) for number in range(10)]


def test_parent_directories_count(tmp_path: Path) -> None:
    collection = collected(tmp_path, *map(member, deep_paths()), max_bytes=1 << 20)
    # Each takes 102 times 4 KiB.
    assert len(collection.stored) == 2
    assert collection.truncated
    assert "larger than 1 MiB (--max-artifact-bytes)" in collection.log
    assert collection.context.objects.used_bytes("jobs/j/1/artifacts/") == (2 * 102 + 1) * 4096


def test_parent_directories_of_a_hard_link_count_before_its_content(tmp_path: Path) -> None:
    links = [member(path, kind=tarfile.LNKTYPE, target="artifacts/a") for path in deep_paths()]
    collection = collected(tmp_path, member("a"), *links, artifacts=["**/b"], max_bytes=1 << 20)
    assert collection.truncated
    assert "larger than 1 MiB (--max-artifact-bytes)" in collection.log


def test_content_above_a_limit_is_not_read(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield header("artifacts/large", size=2**40)
        for _ in range(100):
            yield bytes(1 << 16)
        raise AssertionError("it was read")

    assert Collection(tmp_path, endless(), max_bytes=100).truncated


@pytest.mark.parametrize(
    ("hostile", "problem"),
    [
        (member("../../../../escaped", b"x"), "leads out"),
        (member("a/../../b", b"x"), "leads out"),
        (member("/etc/passwd", b"x"), "leads out"),
        (member("a//b", b"x"), "leads out"),
        (member("./a", b"x"), "leads out"),
        (member("link", kind=tarfile.SYMTYPE, target="/etc/passwd"), "not a regular file"),
        (member("hard", kind=tarfile.LNKTYPE, target="artifacts/nothing"), "to a missing file"),
        (member("hard", kind=tarfile.LNKTYPE, target="artifacts/link"), "is not a regular file"),
        (member("device", kind=tarfile.CHRTYPE, devmajor=1, devminor=3), "not a regular file"),
        (member("disk", kind=tarfile.BLKTYPE), "not a regular file"),
        (member("pipe", kind=tarfile.FIFOTYPE), "not a regular file"),
        (member("good", b"another"), "there twice"),
        (member("good/below", b"x"), "is a file or a link"),
        (member("dir", b"x"), "there twice"),
        (member("x" * 256, b"x"), "more than 255 bytes"),
        (member("é" * 128, b"x"), "more than 255 bytes"),
        (member("/".join(["x"] * 121), b"x"), "too deep"),
        (member("/".join(["x" * 99] * 11), b"x"), "longer than 1024 bytes"),
        (member("a\udcff", b"x"), "not UTF-8"),
    ],
)
def test_invalid_artifact_is_skipped_with_a_logged_reason(
    tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes], problem: str
) -> None:
    info, data = hostile
    copy = tarfile.TarInfo.frombuf(info.tobuf(tarfile.GNU_FORMAT)[-512:], "utf-8", "surrogateescape")
    copy.name = info.name
    link = member("link", kind=tarfile.SYMTYPE, target="/etc/passwd")
    collection = collected(
        tmp_path, member("good", b"good"), member("dir/file"), link, (copy, data), member("last")
    )
    assert collection.paths == ["dir/file", "good", "last"]
    assert collection.stored == {"dir/file", "good", "last"}
    assert b"".join(collection.context.objects.read("jobs/j/1/artifacts/good")) == b"good"
    assert problem in collection.log
    assert not collection.truncated
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "objects"]
    assert list(collection.context.logs.unsealed()) == []


def test_longest_and_deepest_paths_are_stored(tmp_path: Path) -> None:
    longest = "/".join(["x" * 204] * 5)
    assert len(longest) == 1024
    collection = collected(tmp_path, member(longest, b"1"), member("/".join(["x"] * 120), b"2"))
    assert (len(collection.stored), collection.log) == (2, "")


class TestHardLinks:
    """One file under several names, of which a tar has the content only once."""

    def file(self) -> tuple[tarfile.TarInfo, bytes]:
        return member("a/file", b"content", mode=0o755)

    def link(self, name: str, target: str = "a/file") -> tuple[tarfile.TarInfo, bytes]:
        return member(name, kind=tarfile.LNKTYPE, target=f"artifacts/{target}", mode=0o755)

    def contents(self, collection: Collection) -> dict[str, bytes]:
        return {
            item.path: b"".join(read.artifact_bytes(collection.context, collection.job, item))
            for item in read.artifacts(collection.context, collection.job).artifacts
        }

    def test_each_matching_hard_link_is_stored(self, tmp_path: Path) -> None:
        collection = collected(tmp_path, self.file(), self.link("b"), self.link("c/d"))
        assert self.contents(collection) == dict.fromkeys(("a/file", "b", "c/d"), b"content")
        artifacts = read.artifacts(collection.context, collection.job).artifacts
        assert len({(item.size, item.sha256, item.is_executable) for item in artifacts}) == 1
        assert (collection.log, collection.truncated, collection.opened) == ("", False, 1)

    def test_tar_is_read_again_if_only_later_links_match(self, tmp_path: Path) -> None:
        members = (self.file(), member("other"), self.link("b.txt"), self.link("c.txt"), self.link("d"))
        collection = collected(tmp_path, *members, artifacts=["*.txt"])
        assert self.contents(collection) == dict.fromkeys(("b.txt", "c.txt"), b"content")
        assert {
            item.is_executable for item in read.artifacts(collection.context, collection.job).artifacts
        } == {True}
        assert (collection.log, collection.truncated, collection.opened) == ("", False, 2)

    @pytest.mark.parametrize("globs", [None, ["*"]])
    @pytest.mark.parametrize(
        ("limits", "option_end"), [({"max_bytes": 10_000}, "-bytes"), ({"max_files": 2}, "s)")]
    )
    def test_each_hard_link_counts(
        self, tmp_path: Path, globs: list[str] | None, limits: dict[str, int], option_end: str
    ) -> None:
        members = (self.file(), self.link("b"), self.link("c"), self.link("d"))
        collection = collected(tmp_path, *members, artifacts=globs, **limits)
        assert len(collection.stored) <= 2
        assert sorted(collection.stored) == collection.paths
        assert collection.truncated
        assert f"--max-artifact{option_end}" in collection.log


class Stopwatch:
    """Ends the collecting after so many pieces."""

    def __init__(self, pieces: int, error: Exception) -> None:
        self.remaining = pieces
        self.error = error

    def __call__(self) -> None:
        self.remaining -= 1
        if self.remaining < 0:
            raise self.error


@pytest.mark.parametrize("globs", [None, ["file", "last"]])
def test_timeout_stores_the_artifacts_collected_so_far(tmp_path: Path, globs: list[str] | None) -> None:
    def hole() -> Iterator[bytes]:
        yield tar(member("artifacts/file", b"kept"))[:1024]
        yield header("artifacts/hole", size=15_000 << 30)
        while True:
            yield bytes(1 << 18)

    watch = Stopwatch(100, CollectingEnded("it took too long"))
    collection = Collection(tmp_path, hole, artifacts=globs, check=watch, max_bytes=1 << 60)
    assert collection.paths == ["file"]
    assert collection.stored == {"file"}
    assert collection.truncated
    assert "what comes after 'hole' is not stored: it took too long" in collection.log


def test_timeout_at_the_first_file_is_reported(tmp_path: Path) -> None:
    collection = collected(
        tmp_path, member("a", b"x"), check=Stopwatch(0, CollectingEnded("it took too long"))
    )
    assert (collection.paths, collection.truncated) == ([], True)
    assert "what the job left is not stored: it took too long" in collection.log


def test_collecting_can_be_interrupted_between_files(tmp_path: Path) -> None:
    watch = Stopwatch(100, CollectingEnded("it took too long"))
    # All in one piece.
    collection = collected(
        tmp_path, *(member(f"{number}") for number in range(300)), artifacts=["0"], check=watch
    )
    assert (collection.paths, collection.truncated) == (["0"], True)


def test_stopping_service_leaves_collecting_to_the_next(tmp_path: Path) -> None:
    with pytest.raises(JobInterrupted):
        collected(tmp_path, member("a", b"x"), check=Stopwatch(0, JobInterrupted("stopping")))


def test_the_log_names_only_the_first_skipped_artifacts(tmp_path: Path) -> None:
    links = (member(f"{number:03}" + "x" * 250, kind=tarfile.SYMTYPE, target="x") for number in range(300))
    collection = collected(tmp_path, *links)
    assert collection.log.count("is not stored") == 20
    assert "280 more files are not stored" in collection.log
    assert len(collection.log) < 10_000


def test_the_listing_of_artifacts_has_a_bound_in_bytes(tmp_path: Path) -> None:
    # Each takes six times as much in JSON.
    name = "/".join(["\x01" * 251] * 4)
    collection = collected(tmp_path, *(member(f"{name}{number:04}") for number in range(1800)))
    assert collection.truncated
    assert "their list is longer than 8 MiB" in collection.log
    assert 0 < collection.context.objects.size("jobs/j/1/artifacts.json") <= 8 << 20
    assert len(collection.paths) > 1000


def test_truncated_tar_is_an_engine_error(tmp_path: Path) -> None:
    data = tar(member("artifacts/a", b"x" * 10_000))
    with pytest.raises(EngineUnavailable, match="could not be read"):
        Collection(tmp_path, iter([data[:5000]]))


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), globs=st.none() | st.sampled_from(GLOBS))
def test_hostile_tar_writes_nothing_outside(seed: int, globs: list[str] | None) -> None:
    source = random.Random(seed)  # noqa: S311  # a test's
    names = ["..", ".", "", "a", "b.txt", "x", "\udcff", "y" * 300, "/", "é\n"]
    kinds = [tarfile.REGTYPE] * 4 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]
    members = []
    for _ in range(source.randrange(1, 8)):
        name = "/".join(source.choices(names, k=source.randrange(1, 5)))
        kind = source.choice(kinds)
        content = source.randbytes(source.randrange(2000)) if kind == tarfile.REGTYPE else b""
        members.append(member(f"artifacts/{name}", content, kind=kind, target="../" * 9 + "etc/passwd"))
    data = bytearray(tar(*members, format=tarfile.GNU_FORMAT))
    for _ in range(source.choice([0, 0, 3, 30])):
        data[source.randrange(len(data))] = source.randrange(256)
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        try:
            collection = Collection(
                base, iter(list(chunked(bytes(data), 700))), artifacts=globs, max_bytes=30_000
            )
        except EngineUnavailable:
            collection = None
        files = [path for path in base.rglob("*") if not path.is_dir()]
        for path in files:
            assert path.is_relative_to(base / "objects" / "jobs" / "j" / "1")
            assert path.is_file()
            assert not path.is_symlink()
        if collection is not None and collection.prefix is not None:
            assert sorted(collection.stored) == sorted(collection.paths)
            assert collection.context.objects.size("jobs/j/1/artifacts.json") > 0


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    block = bytes(1 << 20)

    def large() -> Iterator[bytes]:
        yield header("artifacts/large", size=100 << 20)
        for _ in range(100):
            yield block
        yield bytes(1024)

    tracemalloc.start()
    try:
        collection = Collection(tmp_path, large())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert collection.context.objects.size("jobs/j/1/artifacts/large") == 100 << 20
    assert peak_bytes < 6 << 20


# --- the list of what there is, with ten thousand entries ---------------------------------------

ODD = ('quote".txt', "back\\slash", "new\nline", '"path": "a", ', "é", "a", "a b", "{}", "a\u2028b")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[JobContext, Job]:
    """A job with a long listing."""
    context, job = a_context(tmp_path_factory.mktemp("listing")), a_job()
    names = [f"directory/{number:05}/with-a-name-of-some-length.txt" for number in range(10_000)]
    items = [Artifact(name, len(name), "0" * 64, is_executable=False) for name in (*names, *ODD)]
    read.save_artifact_listing(context, job, items)
    return context, job


def test_each_of_many_artifacts_is_looked_up(listed: tuple[JobContext, Job]) -> None:
    context, job = listed
    artifacts = read.artifacts(context, job).artifacts
    assert len(artifacts) == 10_000 + len(ODD)
    assert [item.path for item in artifacts] == sorted(item.path for item in artifacts)
    for item in (*artifacts[:30], *artifacts[-30:], *(item for item in artifacts if item.path in ODD)):
        assert read.artifact(context, job, item.path) == item


@pytest.mark.parametrize("path", ["", "b", "directory", "a,", '"', '", "size": 1', "\n", "\ud800"])
def test_missing_artifact_is_not_found(listed: tuple[JobContext, Job], path: str) -> None:
    with pytest.raises(NotFound):
        read.artifact(*listed, path)


def test_lookup_does_not_parse_the_whole_listing(listed: tuple[JobContext, Job]) -> None:
    start_s = time.process_time()
    for number in range(0, 10_000, 100):
        read.artifact(*listed, f"directory/{number:05}/with-a-name-of-some-length.txt")
    # Parsing the list a hundred times takes two seconds and more.
    assert time.process_time() - start_s < 1
