"""Taking a data directory over to PostgreSQL and to a bucket, while no service works on it.

The source is only read. First the objects are copied, each whole under its key, and compared; then a marker
says whose they are. The rows are one transaction on the other database: it has all of them, or none. So an
interrupted run leaves nothing that a service would use, and the next one goes on.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from pathlib import Path

from reactorcide import crashpoints
from reactorcide.domain.errors import ConfigurationError, ObjectNotFound, ObjectStoreError
from reactorcide.domain.jobs import JobStatus
from reactorcide.domain.logs import parse_log_key
from reactorcide.jobs.place import MARKER, MAX_MARKER_BYTES
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.lib.records import record
from reactorcide.logs.local import LocalLogStore
from reactorcide.objects import RESERVED, ObjectStore, StoredObject
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.settings import Settings
from reactorcide.store import Store, transfer
from reactorcide.store.connection import JobDatabase
from reactorcide.store.log_pieces import LogPieces
from reactorcide.store.vault import Vault

_COPIERS = 8
"""Objects that are copied at once: each needs a few answers of the bucket, one after the other."""
_CLAIM = "migration/of"
"""The object that says whose objects are being copied here."""
_CLAIMS = "migration/"
_LOG_BYTES = 1 << 18

Progress = Callable[[str, int, int], None]
"""Gets what is done now, and how many of them are done, of how many."""


@record
class Result:
    """What was taken over."""

    objects: int
    object_bytes: int
    rows: int | None
    """``None``: the database was not to be taken over, or has this installation's rows already."""
    logs: int


def check(settings: Settings) -> None:
    """Raise ``ConfigurationError`` unless there is a data directory to be taken over."""
    if not settings.database_path.is_file():
        raise ConfigurationError(
            f"there is no database in {settings.data_dir}; name the service's directory with --data-dir"
        )


def migrate(
    settings: Settings,
    database: JobDatabase | None,
    objects: tuple[str, ObjectStore] | None,
    progress: Progress,
) -> Result:
    """Take the data directory over to another database and to another object store, if given.

    Safe to repeat. The caller holds the data directory's lock. Raises ``ConfigurationError`` if that may not
    be, and ``InfrastructureError`` if something fails meanwhile.
    """
    with transfer.opened(settings.database_path) as source:
        row = next(iter(source.query("SELECT instance_id, objects_url FROM instance")), None)
        if row is None:
            raise ConfigurationError(f"{settings.data_dir} is new, and has nothing to be taken over")
        instance_id, recorded = str(row[0]), row[1]
        number = size_bytes = 0
        if objects is not None:
            url, bucket = objects
            if recorded not in (None, url):
                raise ConfigurationError(
                    f"the objects of this installation are in {recorded}, and not in {settings.data_dir}: "
                    "leave out --objects, or copy the bucket with a tool of S3"
                )
            if recorded is None:
                number, size_bytes = _copy_objects(settings, instance_id, bucket, url, progress)
        rows, logs = None, 0
        if database is not None:
            rows, logs = _copy_rows(settings, source, database, instance_id, objects, progress)
    return Result(number, size_bytes, rows, logs)


# --- objects -----------------------------------------------------------------------------------


def _copy_objects(
    settings: Settings, instance_id: str, bucket: ObjectStore, url: str, progress: Progress
) -> tuple[int, int]:
    """Copy and compare all objects; returns their number and bytes."""
    bucket.check()
    here = FilesystemObjectStore(settings.objects_dir)
    claim = _text(bucket, MARKER) or _text(bucket, _CLAIM)
    if claim not in (None, instance_id):
        raise ConfigurationError(
            f"{url} has the objects of another installation ({claim}); name another bucket or prefix with "
            "--objects"
        )
    if _text(bucket, MARKER) == instance_id:
        # Whoever serves from it may have removed some since.
        bucket.delete(_CLAIMS)
        return 0, 0
    bucket.put(_CLAIM, [instance_id.encode()])
    total = sum(1 for _ in _stored(settings.objects_dir, here))

    def copy(item: StoredObject) -> int:
        with suppress(ObjectNotFound):
            if bucket.size(item.key) == item.size_bytes:
                return item.size_bytes
        return bucket.put(item.key, here.read(item.key))

    def compare(item: StoredObject) -> int:
        if _digest(bucket, item.key) != _digest(here, item.key):
            # Of the same size, and not the same: the next run is to copy it.
            bucket.put(item.key, here.read(item.key))
            if _digest(bucket, item.key) != _digest(here, item.key):
                raise ObjectStoreError(
                    f"the copy of {item.key} in {url} is not the same; run the command again"
                )
        return item.size_bytes

    size_bytes = 0
    for label, work in (("objects copied", copy), ("objects compared", compare)):
        size_bytes = 0
        for done, item_bytes in enumerate(_spread(work, _stored(settings.objects_dir, here)), start=1):
            size_bytes += item_bytes
            progress(label, done, max(done, total))
    crashpoints.reached("migrate-objects-copied")
    bucket.put(MARKER, [instance_id.encode()])
    bucket.delete(_CLAIMS)
    return total, size_bytes


def _stored(directory: Path, here: FilesystemObjectStore) -> Iterator[StoredObject]:
    """Yield all objects of a data directory."""
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(directory)):
            if name != RESERVED and (directory / name).is_dir():
                yield from here.list(f"{name}/")


def _spread(work: Callable[[StoredObject], int], items: Iterator[StoredObject]) -> Iterator[int]:
    """Yield the results of ``work``, done on a few threads, with few of the items in memory."""
    with ThreadPoolExecutor(_COPIERS) as pool:
        running: set[Future[int]] = set()
        try:
            while True:
                running |= {pool.submit(work, item) for item in islice(items, 2 * _COPIERS - len(running))}
                if not running:
                    return
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()


def _digest(store: ObjectStore, key: str) -> bytes:
    digest = hashlib.sha256()
    for chunk in store.read(key):
        digest.update(chunk)
    return digest.digest()


def _text(store: ObjectStore, key: str) -> str | None:
    try:
        return b"".join(store.read(key, 0, MAX_MARKER_BYTES)).decode(errors="replace").strip()
    except ObjectNotFound:
        return None


# --- rows --------------------------------------------------------------------------------------


def _copy_rows(
    settings: Settings,
    source: transfer.Source,
    database: JobDatabase,
    instance_id: str,
    objects: tuple[str, ObjectStore] | None,
    progress: Progress,
) -> tuple[int | None, int]:
    """Copy and compare all rows, and the logs that are no objects; returns the number of both."""
    database.migrate()
    owner = transfer.owner(database)
    if owner == instance_id:
        return None, 0
    if owner is not None:
        raise ConfigurationError(
            f"the database has the data of another installation ({owner}); name an empty one with --database"
        )
    _refuse_running(source)
    vault = Vault.beside(settings.database_path)
    vault.load()
    store = Store(database, vault)
    total, done = transfer.count(source), 0

    def copied(rows: int) -> None:
        nonlocal done
        done += rows
        progress("rows copied", done, total)

    with store.transaction() as tx, database.open_transaction.read() as db:
        counts = transfer.copy(source, db, copied)
        database.continue_numbers(transfer.last_numbers(source))
        if objects is not None:
            db.execute_sql("UPDATE instance SET objects_url = ?", (objects[0],))
        logs = _copy_logs(settings, tx.log_pieces)
        # The queue is another one, and does not know them.
        tx.tasks.forget_all(now_ms=now_ms())
        crashpoints.reached("migrate-rows-copied")
    return sum(counts.values()), logs


def _refuse_running(source: transfer.Source) -> None:
    sql = "SELECT COUNT(*) FROM job WHERE status = ?"
    ((running,),) = source.query(sql, (JobStatus.RUNNING,))
    if running:
        raise ConfigurationError(
            f"{running} jobs have not ended: start the service on the data directory with --drain, and stop "
            "it with SIGTERM, which lets them end"
        )


def _copy_logs(settings: Settings, pieces: LogPieces) -> int:
    """Copy the logs that are not objects yet; returns the number of files."""
    logs = LocalLogStore(settings.logs_dir, FilesystemObjectStore(settings.objects_dir))
    number = 0
    for file in logs.unsealed():
        log, writer, end = parse_log_key(file.key), new_id(), 0
        pieces.open(log, writer, size_bytes=0)
        with logs.path(file.key).open("rb") as content:
            while data := content.read(_LOG_BYTES):
                pieces.add(log, writer, end, data, merged_from=end, merged=b"")
                end += len(data)
        number += 1
    return number
