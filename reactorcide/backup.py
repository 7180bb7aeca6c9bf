"""Backup of a data directory to one file, while a service uses it, and restore.

The job database is copied first, and then the objects: an object is stored before the row that names it. The
logs of running attempts are in the backup as objects, which the attempts reopen.

Objects in a bucket are not in the backup; then those logs are in it as the files that they are.

The queue is left out: its contents follow from the database, and a restored service enqueues its waiting
jobs again. Open runs are cancelled, because they would deploy an old commit.
"""

import gzip
import io
import json
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from reactorcide import __version__
from reactorcide.domain.audit import Action, AuditEntry, operator
from reactorcide.domain.caches import PREFIX
from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.domain.jobs import attempt_of
from reactorcide.jobs.dependents import Change
from reactorcide.lib.clock import now_ms, rfc3339
from reactorcide.lib.tar import DamagedTar, Entry, gunzip, read_tar
from reactorcide.logconfig import printable
from reactorcide.logs.local import LocalLogStore
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.settings import Settings
from reactorcide.store import Store
from reactorcide.store.database import Database, copy_database
from reactorcide.store.vault import Vault

_MANIFEST = "reactorcide-backup.json"
_FORMAT = 1
_DATABASE = "reactorcide.db"
_SECRET_KEY = "secret-key"  # noqa: S105  # a file's name
_OBJECTS = "objects"
_LOGS = "logs"
_END = "end"
_CHUNK_BYTES = 1 << 20
_MAX_TEXT_CHARS = 200
_RUNS_AT_ONCE = 100
_ANY_TIME_MS = 1 << 60
"""Later than any time that a row has, whatever the clock was."""

Progress = Callable[[int, int], None]
"""Gets the number of bytes done, and the total."""


def backup(settings: Settings, target: Path, progress: Progress) -> int:
    """Write a backup to ``target``, whole or not at all, and return its bytes; replaces an older one.

    Safe while a service uses the data directory. The backup has all that the service needs, including the key
    of the secrets, but not the admin's token, which can be replaced. Raises ``ConfigurationError`` if there
    is no database, or the backup cannot be written.
    """
    _check_is_file(settings)
    if not settings.database_path.is_file():
        raise ConfigurationError(
            f"there is no database in {settings.data_dir}; name the service's directory with --data-dir"
        )
    try:
        with tempfile.TemporaryDirectory(
            prefix=f".{target.name}-", dir=target.absolute().parent
        ) as temporary_dir:
            copied = Path(temporary_dir, _DATABASE)
            copy_database(settings.database_path, copied)
            written = Path(temporary_dir, target.name)
            _write(settings, copied, written, progress)
            # Checked afterwards: a key never becomes the one of before again.
            _check_key(settings, copied)
            os.replace(written, target)
    except (OSError, sqlite3.Error) as exc:
        raise ConfigurationError(f"the backup {target} could not be written: {exc}") from exc
    return target.stat().st_size


def _check_is_file(settings: Settings) -> None:
    """Raise ``ConfigurationError`` if the job database is not in the data directory."""
    if settings.database is not None:
        raise ConfigurationError(
            "the job database is on PostgreSQL, which this does not copy: use pg_dump and pg_restore, and "
            f"copy {settings.data_dir / _SECRET_KEY}, without which its secrets cannot be read"
        )


def bucket(database: Path) -> str | None:
    """Return the bucket that has the objects of a database; ``None`` if its data directory has them."""
    try:
        # An older version has no such column.
        url = _instance(database).get("objects_url")
    except sqlite3.Error as exc:
        raise ConfigurationError(f"the database {database} cannot be read: {exc}") from exc
    return None if url is None else str(url)


def _instance(database: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return dict(connection.execute("SELECT * FROM instance").fetchone() or {})


def _check_key(settings: Settings, database: Path) -> None:
    """Raise ``ConfigurationError`` if the key of the data directory is not the one of a copied database."""
    vault = Vault.beside(settings.database_path)
    # An older version has no such column.
    key_sha256 = _instance(database).get("secret_key_sha256")
    if key_sha256 is not None and vault.load() and vault.fingerprint != key_sha256:
        raise ConfigurationError(
            f"the key {vault.path} was renewed while the backup was written, or its renewal is not over; "
            "write the backup again, or start the service once"
        )


def _write(settings: Settings, database: Path, target: Path, progress: Progress) -> None:
    files = {_DATABASE: database}
    if (settings.data_dir / _SECRET_KEY).exists():
        files[_SECRET_KEY] = settings.data_dir / _SECRET_KEY
    files |= _stored_files(settings, database)
    total_bytes = sum(path.stat().st_size for path in files.values() if path.exists())
    done_bytes = 0

    def read(count_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += count_bytes
        progress(done_bytes, max(total_bytes, done_bytes))

    manifest = {
        "format": _FORMAT,
        "version": __version__,
        "created_at": rfc3339(now_ms()),
        "migrations": _migrations(database),
    }
    with open(target, "xb", opener=_open_private) as file:
        with (
            gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, filename="") as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            text = json.dumps(manifest).encode()
            _add(tar, _MANIFEST, io.BytesIO(text), len(text))
            for name, path in files.items():
                file_to_copy = _opened(path, settings.data_dir / name)
                if file_to_copy is None:
                    # Its job was deleted meanwhile.
                    continue
                with file_to_copy:
                    # Bytes appended from now on are not part of the backup.
                    size_bytes = os.fstat(file_to_copy.fileno()).st_size
                    _add(tar, name, _Counted(file_to_copy, read), size_bytes)
            _add(tar, _END, io.BytesIO(), 0)
        file.flush()
        os.fsync(file.fileno())


class _Counted:
    """A file that reports how much of it was read."""

    def __init__(self, file: IO[bytes], report: Callable[[int], None]) -> None:
        self._file = file
        self._report = report

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._file.read(size)
        self._report(len(data))
        return data


def _add(tar: tarfile.TarFile, name: str, content: Any, size_bytes: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    member.mode = 0o600
    tar.addfile(member, content)


def _opened(path: Path, sealed_path: Path) -> IO[bytes] | None:
    """Open a file, or the object of a log that was sealed meanwhile; ``None`` if there is neither.

    With a bucket ``sealed_path`` is the file itself: its log is in the bucket then.
    """
    for place in (path, sealed_path):
        with suppress(FileNotFoundError):
            return place.open("rb")
    return None


def _stored_files(settings: Settings, database: Path) -> dict[str, Path]:
    """Return the files of objects and unsealed logs, by their names as objects.

    Jobs that are not in the copy of the database are left out.
    """
    with closing(sqlite3.connect(database)) as connection:
        jobs = {job_id for (job_id,) in connection.execute("SELECT job_id FROM job")}
    store = LocalLogStore(settings.logs_dir, FilesystemObjectStore(settings.objects_dir))
    is_in_bucket = bucket(database) is not None
    # Logs first: a log that is sealed in between is then in both lists, never in none.
    logs = {
        f"{_LOGS}/{store.path(file.key).name}" if is_in_bucket else f"{_OBJECTS}/{file.key}": store.path(
            file.key
        )
        for file in store.unsealed()
        if attempt_of(file.key)[0] in jobs
    }
    if is_in_bucket:
        return logs
    objects = {
        f"{_OBJECTS}/{path.relative_to(settings.objects_dir)}": path for path in _objects(settings, jobs)
    }
    return objects | logs


def _objects(settings: Settings, jobs: Collection[str]) -> Iterator[Path]:
    """Yield the files of all objects, except those of jobs that are not in ``jobs``."""
    for directory, below, names in os.walk(settings.objects_dir, onerror=_unless_missing):
        where = Path(directory).relative_to(settings.objects_dir)
        if where == Path():
            # Incomplete objects, and caches, which jobs create again.
            below[:] = [name for name in below if name not in (".tmp", PREFIX.rstrip("/"))]
        elif where == Path("jobs"):
            below[:] = [name for name in below if name in jobs]
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _unless_missing(error: OSError) -> None:
    # A job may be deleted meanwhile. With any other error files would be missing from the backup.
    if not isinstance(error, FileNotFoundError):
        raise error


def _migrations(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM schema_migration ORDER BY name")]


def restore(settings: Settings, backup_path: Path, progress: Progress, *, resume: bool = False) -> int:
    """Restore a backup into an empty or new data directory: all of it, or nothing.

    Returns the number of cancelled open runs; with ``resume`` they continue. Raises ``ConfigurationError`` if
    the directory is not empty, or the file is not a complete backup that this version can read.
    """
    _check_is_file(settings)
    target = settings.data_dir.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"{target} is not empty; a backup is restored into an empty directory only")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary_dir:
            restored = Path(temporary_dir, "data")
            restored.mkdir(mode=0o700)
            with backup_path.open("rb") as file:
                created_at = _read(
                    file, restored, lambda: progress(file.tell(), os.fstat(file.fileno()).st_size)
                )
            cancelled = _resume(
                restored / _DATABASE, None if resume else f"restored from a backup of {created_at}"
            )
            os.sync()
            # Replaces an empty directory only.
            os.replace(restored, target)
        return cancelled
    except DamagedTar as exc:
        raise ConfigurationError(
            f"{backup_path} is not a backup of Reactorcide, or is damaged: {exc}"
        ) from exc
    except EOFError as exc:
        raise ConfigurationError(f"{backup_path} is incomplete: it ends too early") from exc
    except OSError as exc:
        raise ConfigurationError(
            f"{backup_path} could not be restored to {target}: {exc.strerror or exc}; "
            "if that is a mount, use a directory below it"
        ) from exc
    except StoreError as exc:
        raise ConfigurationError(f"the database in {backup_path} cannot be used: {exc}") from exc


def _read(file: IO[bytes], target: Path, progress: Callable[[], None]) -> str:
    """Unpack a backup, and return its time."""
    unpacked = gunzip(iter(lambda: file.read(_CHUNK_BYTES), b""))
    names: list[str] = []
    created_at = ""
    for entry in read_tar(unpacked):
        if entry.kind != "file":
            raise DamagedTar(f"{_cut_text(entry.path)} is not a regular file")
        if not names:
            created_at = _check_manifest(entry)
        elif entry.path != _END:
            _extract(entry, target / _checked(entry.path), progress)
        names.append(entry.path)
    # gzip's checksum is after the last member.
    for _ in unpacked:
        pass
    if _DATABASE not in names or names[-1] != _END:
        raise EOFError
    return created_at


def _check_manifest(entry: Entry) -> str:
    """Return when the backup was made; raises where this version cannot read it."""
    if entry.path != _MANIFEST:
        raise DamagedTar(f"it begins with {_cut_text(entry.path)}")
    if entry.size_bytes > _CHUNK_BYTES:
        raise DamagedTar(f"its {_MANIFEST} is too long")
    try:
        manifest = json.loads(b"".join(entry.chunks))
        version, created_at, applied = (manifest[key] for key in ("version", "created_at", "migrations"))
        is_newer = manifest["format"] > _FORMAT or not set(applied) <= Database.migrations()
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise DamagedTar(f"its {_MANIFEST} cannot be read") from exc
    if is_newer:
        raise ConfigurationError(
            "this backup was written by a newer version of Reactorcide "
            f"({_cut_text(version)}, at {_cut_text(created_at)}); restore it with that version or a later one"
        )
    return _cut_text(created_at)


def _checked(name: str) -> PurePosixPath:
    """Return the path for a member; raises ``DamagedTar`` for a name that no backup has."""
    path = PurePosixPath(name)
    if "\0" in name or (
        name not in (_DATABASE, _SECRET_KEY)
        and (path.parts[:1] not in ((_OBJECTS,), (_LOGS,)) or len(path.parts) < 2 or ".." in path.parts)
    ):
        raise DamagedTar(f"{_cut_text(name)} does not belong in it")
    return path


def _cut_text(text: object) -> str:
    """Return text from a backup on one line, safe for a terminal."""
    return printable(str(text)[:_MAX_TEXT_CHARS])


def _extract(entry: Entry, target: Path, progress: Callable[[], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb", opener=_open_private) as file:
        for chunk in entry.chunks:
            file.write(chunk)
            progress()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _resume(database: Path, reason: str | None) -> int:
    """Enqueue waiting jobs again, and cancel open runs if there is a ``reason``; returns their number."""
    opened = Database(database)
    at_ms = now_ms()
    try:
        # The backup may be an older version's.
        opened.migrate()
        store = Store(opened, Vault.beside(database))
        store.tasks.forget_all(now_ms=at_ms)
        if reason is None:
            return 0
        store.schedules.reckon_all()
        store.deliveries.expire_waiting(f"ignored: {reason}")
        cancelled = _cancel_runs(store, reason, at_ms=at_ms)
        store.runs.skip_numbers()
        # The forge may have been told other things since.
        store.outbox.give_up_statuses(None, reason, owed_up_to_ms=_ANY_TIME_MS)
        store.webhooks.give_up(None, reason, owed_up_to_ms=_ANY_TIME_MS)
        store.webhooks.set_cursor(store.events.last_id())
        return cancelled
    finally:
        opened.close()


def _cancel_runs(store: Store, reason: str, *, at_ms: int) -> int:
    cancelled = 0
    last = ""
    while run_ids := store.runs.open(before_ms=_ANY_TIME_MS, after=last, limit=_RUNS_AT_ONCE):
        last = run_ids[-1]
        store.instance.open_vault()
        with store.transaction() as tx:
            for run_id in run_ids:
                run = tx.runs.lock(run_id)
                if run is None:
                    continue
                # What would follow in other runs does not: they are cancelled, too.
                Change(tx, now_ms=at_ms).cancel(run, reason)
                entry = AuditEntry(at_ms=at_ms, by=operator(), action=Action.RUN_CANCEL, subject=run_id)
                tx.audit.add(entry)
                cancelled += 1
    return cancelled
