"""Backup and restore of a data directory: the contents, and refused files."""

import errno
import gzip
import io
import json
import os
import sqlite3
import tarfile
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reactorcide import backup
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import ConfigurationError
from reactorcide.domain.jobs import Job, JobFilter, JobStatus, attempt_prefix, log_key
from reactorcide.logs.local import LocalLogStore
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.objects.memory import MemoryObjectStore
from reactorcide.settings import Settings
from reactorcide.store.database import Database
from tests.support.store import new_store
from tests.support.tars import header

INSTANCE = "instance-1"


def nothing(done_bytes: int, total_bytes: int) -> None:
    """Show no progress."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A data directory with something in it."""
    settings = Settings(data_dir=tmp_path / "data")
    settings.data_dir.mkdir()
    database = Database(settings.database_path)
    database.migrate()
    new_store(database).instance.id(INSTANCE)
    database.close()
    objects = FilesystemObjectStore(settings.objects_dir)
    objects.put("sources/1", [b"x" * 100_000])
    objects.put("caches/1/tar", [b"x"])
    objects.put("jobs/nobody's/1/log", [b"of a job that is gone"])
    (settings.objects_dir / ".tmp" / "half").write_bytes(b"half")
    (settings.data_dir / "secret-key").write_bytes(b"key")
    (settings.data_dir / "admin-token").write_bytes(b"token")
    return settings


@pytest.fixture
def file(settings: Settings, tmp_path: Path) -> Path:
    """A backup of it."""
    archive = tmp_path / "b.tar.gz"
    assert backup.backup(settings, archive, nothing) == archive.stat().st_size
    return archive


@pytest.fixture
def empty(tmp_path: Path) -> Settings:
    """Where to restore to: a directory that is not there yet, in one of its own."""
    (tmp_path / "elsewhere").mkdir()
    return Settings(data_dir=tmp_path / "elsewhere" / "data")


def test_unreadable_object_fails_the_backup(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def failing(path: Any) -> Any:
        # As a failing disk does, which cannot be had otherwise.
        if str(path).endswith("objects/sources"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(ConfigurationError, match=r"could not be written: .*Input/output error"):
        backup.backup(settings, tmp_path / "b.tar.gz", nothing)
    assert not (tmp_path / "b.tar.gz").exists()


@pytest.mark.parametrize("sealed_meanwhile", [False, True])
def test_backup_has_the_log_of_a_running_attempt(
    settings: Settings, tmp_path: Path, empty: Settings, sealed_meanwhile: bool
) -> None:
    database = Database(settings.database_path)
    definition = JobDefinition(name="n", job_command="true", source_type="copy", runner_image="i")
    job = Job(
        job_id="running",
        user_id="u",
        definition=definition,
        status=JobStatus.SUBMITTED,
        created_at_ms=1,
        updated_at_ms=1,
    )
    new_store(database).jobs.add(job, next_submit_at_ms=0)
    database.close()
    logs = LocalLogStore(settings.logs_dir, FilesystemObjectStore(settings.objects_dir))
    for job_id in ("running", "nobodys"):
        log = logs.append(log_key(job_id, 1))
        log.write(b"so far\n")
        log.close()

    def seal(done_bytes: int, total_bytes: int) -> None:
        if sealed_meanwhile:
            logs.seal(attempt_prefix("running", 1))

    backup.backup(settings, tmp_path / "b.tar.gz", seal)
    in_it = dict(members(tmp_path / "b.tar.gz"))
    assert in_it["objects/jobs/running/1/log"] == b"so far\n"
    assert not [name for name in in_it if "nobodys" in name]
    backup.restore(empty, tmp_path / "b.tar.gz", nothing)
    restored = LocalLogStore(empty.logs_dir, FilesystemObjectStore(empty.objects_dir))
    assert b"".join(restored.read(log_key("running", 1))) == b"so far\n"
    assert restored.append(log_key("running", 1)).size_bytes == 7


def refused(empty: Settings, file: Path, match: str) -> None:
    """Try to restore a bad file, and see that it leaves no files."""
    before = sorted(empty.data_dir.parent.rglob("*"))
    with pytest.raises(ConfigurationError, match=match):
        backup.restore(empty, file, nothing)
    assert sorted(empty.data_dir.parent.rglob("*")) == before


def packed(path: Path, *members: tuple[str, bytes]) -> Path:
    """Write a tar.gz of ``members``."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def members(file: Path) -> list[tuple[str, bytes]]:
    """Return what is in a backup."""
    with tarfile.open(file) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]  # files all


def test_backup_has_exactly_what_the_service_needs(settings: Settings, file: Path) -> None:
    names = [name for name, _ in members(file)]
    assert names == ["reactorcide-backup.json", "reactorcide.db", "secret-key", "objects/sources/1", "end"]


@pytest.mark.parametrize("is_there", [False, True])
def test_backup_is_restored_completely(file: Path, empty: Settings, is_there: bool) -> None:
    if is_there:
        empty.data_dir.mkdir()
    steps: list[int] = []
    backup.restore(empty, file, lambda done_bytes, total_bytes: steps.append(done_bytes * 100 // total_bytes))
    assert steps[-1] in range(50, 101)
    assert b"".join(FilesystemObjectStore(empty.objects_dir).read("sources/1")) == b"x" * 100_000
    assert (empty.data_dir / "secret-key").read_bytes() == b"key"
    assert {path.name for path in empty.data_dir.iterdir()} == {"reactorcide.db", "secret-key", "objects"}
    assert not [path for path in empty.data_dir.iterdir() if path.is_file() and path.stat().st_mode & 0o077]
    database = Database(empty.database_path)
    assert database.migrate() == []
    assert new_store(database).instance.id("another") == INSTANCE
    database.close()


def test_existing_backup_is_replaced_only_by_a_complete_one(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()
    (settings.objects_dir / "sources" / "2").write_bytes(b"y")

    def fail(done_bytes: int, total_bytes: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ConfigurationError, match="No space left"):
        backup.backup(settings, file, fail)
    assert file.read_bytes() == before
    backup.backup(settings, file, nothing)
    assert "objects/sources/2" in dict(members(file))
    assert sorted(path.name for path in file.parent.iterdir()) == ["b.tar.gz", "data"]


def test_directory_without_a_database_is_refused(empty: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--data-dir"):
        backup.backup(empty, tmp_path / "b", nothing)
    assert not (tmp_path / "b").exists()


def test_directory_in_use_is_not_overwritten(file: Path, empty: Settings) -> None:
    empty.data_dir.mkdir()
    (empty.data_dir / "something").touch()
    refused(empty, file, "not empty")


@pytest.mark.parametrize("cut", [1, 5, 8, 9, 100, 0.5, 0.99])
def test_truncated_file_is_refused(file: Path, empty: Settings, cut: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: round(len(whole) * cut)] if cut < 1 else whole[: -int(cut)])
    refused(empty, file, "is incomplete|damaged")


def test_file_with_a_flipped_bit_is_refused(file: Path, empty: Settings) -> None:
    whole = file.read_bytes()
    content = gzip.decompress(whole)

    def is_another(data: bytes) -> bool:
        # Among zeros a wrong distance changes nothing.
        try:
            return gzip.decompress(data) != content
        except (OSError, EOFError, zlib.error):
            return True

    places = range(len(whole) // 2, len(whole))
    flipped = (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places)
    file.write_bytes(next(filter(is_another, flipped)))
    refused(empty, file, "damaged|incomplete|could not be")


def test_a_backup_that_lacks_its_end_is_refused(file: Path, empty: Settings) -> None:
    packed(file, *members(file)[:-1])
    refused(empty, file, "incomplete")


def test_other_files_are_refused(tmp_path: Path, empty: Settings) -> None:
    other = tmp_path / "other"
    refused(empty, other, "could not be restored")
    other.write_bytes(b"")
    refused(empty, other, "not a backup|incomplete")
    other.write_bytes(b"just a text\n" * 100)
    refused(empty, other, "not a backup")
    other.write_bytes(gzip.compress(b"just a text\n" * 100))
    refused(empty, other, "not a backup")
    refused(empty, packed(other, ("readme", b"")), "it begins with readme")
    refused(empty, packed(other, ("reactorcide-backup.json", b"[]")), "cannot be read")


@pytest.mark.parametrize("change", [{"format": 2}, {"migrations": ["0001_jobs", "9999_future"]}])
def test_a_newer_versions_backup_is_refused(file: Path, empty: Settings, change: dict[str, object]) -> None:
    (name, manifest), *rest = members(file)
    newer = json.loads(manifest) | change | {"version": "9.9"}
    packed(file, (name, json.dumps(newer).encode()), *rest)
    refused(empty, file, r"newer version of Reactorcide \(9\.9")


@pytest.mark.parametrize("name", ["../x", "/x", "objects/../../x", "lock", "admin-token", "objects"])
def test_unexpected_member_is_refused(file: Path, empty: Settings, name: str) -> None:
    packed(file, *members(file)[:-1], (name, b"x"), ("end", b""))
    refused(empty, file, "does not belong")


def test_a_link_is_refused(file: Path, empty: Settings) -> None:
    held = members(file)
    packed(file, *held)
    with gzip.open(file) as packed_file:
        plain = io.BytesIO(packed_file.read())
    with tarfile.open(fileobj=plain, mode="a") as tar:
        link = tarfile.TarInfo("objects/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    file.write_bytes(gzip.compress(plain.getvalue()))
    refused(empty, file, "not a regular file")


def test_a_sparse_file_is_refused_and_does_not_expand(file: Path, empty: Settings) -> None:
    plain = gzip.decompress(file.read_bytes())
    # An old GNU sparse member, and the same in extended headers: both name a hole of 15 TB.
    old = bytearray(header("objects/hole", kind=tarfile.GNUTYPE_SPARSE))
    old[386:398] = b"00000000000\0"
    old[398:410] = b"00000000000\0"
    old[483:495] = b"\x80" + (15_000 << 30).to_bytes(11, "big")
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + sum(old[156:]) + 8 * 32)
    records = b"".join(
        b"%d %s\n" % (len(text) + 4, text)
        for text in (b"GNU.sparse.major=0", b"GNU.sparse.size=%d" % (15_000 << 30), b"GNU.sparse.numblocks=0")
    )
    new = header("x", kind=tarfile.XHDTYPE, size=len(records)) + records + bytes(-len(records) % 512)
    end = plain.rindex(b"end\0")
    for extra in (bytes(old), new + header("objects/hole")):
        file.write_bytes(gzip.compress(plain[:end] + extra + plain[end:]))
        refused(empty, file, "has a sparse file, as created by tar")


@pytest.mark.parametrize("path", [b"objects/a\0b", b"objects/" + b"x" * 300, b"objects/\x1b]0;owned\x07\0"])
def test_impossible_name_is_a_clear_error(file: Path, empty: Settings, path: bytes) -> None:
    plain = gzip.decompress(file.read_bytes())
    length = next(n for n in range(400) if n == len(b"%d path=%s\n" % (n, path)))
    record = b"%d path=%s\n" % (length, path)
    extra = header("x", kind=tarfile.XHDTYPE, size=length) + record + bytes(-length % 512) + header("a")
    end = plain.rindex(b"end\0")
    file.write_bytes(gzip.compress(plain[:end] + extra + plain[end:]))
    with pytest.raises(ConfigurationError) as raised:
        backup.restore(empty, file, nothing)
    assert "\x1b" not in str(raised.value)
    refused(empty, file, "does not belong|File name too long")


def test_hostile_manifest_is_refused(file: Path, empty: Settings) -> None:
    for manifest in (b"[" * 100_000, b"x" * (2 << 20)):
        packed(file, ("reactorcide-backup.json", manifest), *members(file)[1:])
        refused(empty, file, "cannot be read|too long")


def test_an_older_versions_backup_is_upgraded(tmp_path: Path, empty: Settings) -> None:
    old = Settings(data_dir=tmp_path / "old")
    old.data_dir.mkdir()
    with closing(sqlite3.connect(old.database_path)) as connection:
        connection.executescript((Path(__file__).parent / "migration" / "0001_jobs.sql").read_text())
    archive = tmp_path / "old.tar.gz"
    backup.backup(old, archive, nothing)

    assert backup.restore(empty, archive, nothing) == 0
    database = Database(empty.database_path)
    assert database.migrate() == []
    waiting, _ = new_store(database).lists.page(JobFilter(statuses=[JobStatus.SUBMITTED]), limit=10)
    assert [job.definition.name for job in waiting] == ["waiting"]
    database.close()


def test_objects_in_a_bucket_are_left_out_and_unsealed_logs_are_not(
    settings: Settings, tmp_path: Path, empty: Settings
) -> None:
    database = Database(settings.database_path)
    store = new_store(database)
    store.instance.save_objects_url("s3://bucket/ci")
    definition = JobDefinition(name="n", job_command="true", source_type="copy", runner_image="i")
    job = Job(
        job_id="running",
        user_id="u",
        definition=definition,
        status=JobStatus.SUBMITTED,
        created_at_ms=1,
        updated_at_ms=1,
    )
    store.jobs.add(job, next_submit_at_ms=0)
    database.close()
    log = LocalLogStore(settings.logs_dir, FilesystemObjectStore(settings.objects_dir)).append(
        log_key("running", 1)
    )
    log.write(b"so far\n")
    log.close()
    backup.backup(settings, tmp_path / "b.tar.gz", nothing)
    assert [name for name, _ in members(tmp_path / "b.tar.gz") if "/" in name] == ["logs/running.1.log"]
    backup.restore(empty, tmp_path / "b.tar.gz", nothing)
    assert backup.bucket(empty.database_path) == "s3://bucket/ci"
    restored = LocalLogStore(empty.logs_dir, MemoryObjectStore())
    assert restored.append(log_key("running", 1)).size_bytes == 7
