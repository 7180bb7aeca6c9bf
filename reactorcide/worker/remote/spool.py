"""The logs of running attempts on the worker's own disk, until the service has them."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from reactorcide.domain.errors import LogLost, ObjectNotFound
from reactorcide.domain.jobs import attempt_of, log_index_key, log_key
from reactorcide.domain.logs import parse_log_key
from reactorcide.lib.sizes import format_size
from reactorcide.objects import StoredObject
from reactorcide.objects.filesystem import translated

_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 18
_MAX_REST_BYTES = 16 << 20
"""How much of a file may be in memory, for which there is no room on the disk."""


Cutting = Callable[[str, int], AbstractContextManager[None]]
"""Surrounds the cutting back of a file, with its key and its new length."""
Failed = Callable[[OSError], None]
"""Hears of a file that cannot be written."""


class Spool:
    """A ``LogStore`` of files in one directory, which only this user can read.

    They are not made durable: what a lost machine had not sent yet, its engine has not either. They are read
    by their descriptors, so that a directory that is removed meanwhile loses nothing. What the disk does not
    take stays in memory.
    """

    def __init__(self, base: Path, cutting: Cutting, failed: Failed) -> None:
        self._base = base
        self._cutting = cutting
        self._failed = failed
        self._files: dict[str, SpoolFile] = {}

    def append(self, key: str) -> "SpoolFile":
        """See ``LogStore.append``; once for each key."""
        path, descriptor = self.path(key), -1
        try:
            # Not its parents: a data directory that is gone is not made anew.
            self._base.mkdir(exist_ok=True, mode=0o700)
            descriptor = os.open(path, _APPEND, 0o600)
        except OSError as exc:
            self._failed(exc)
        self._files[key] = file = SpoolFile(path, descriptor, key, self._cutting, self._failed)
        return file

    def close(self) -> None:
        """Close the files; nothing is read any more. Safe to repeat."""
        for file in self._files.values():
            file.release()

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``LogStore.read``."""
        data = self.piece(key, start, self.size(key) if end is None else end - start)
        return (data[at : at + _CHUNK_BYTES] for at in range(0, len(data), _CHUNK_BYTES))

    def piece(self, key: str, start: int, max_bytes: int) -> bytes:
        """Return up to ``max_bytes`` from ``start``; raises ``LogLost`` if the file is shorter by now."""
        return self._file(key).read(start, max_bytes)

    def size(self, key: str) -> int:
        """See ``LogStore.size``."""
        return self._file(key).size_bytes

    def sizes(self, job_id: str, attempt: int) -> tuple[int, int]:
        """Return the bytes of an attempt's log and of its index; the text covers all of the index."""
        index_bytes = self.size(log_index_key(job_id, attempt))
        return self.size(log_key(job_id, attempt)), index_bytes

    def _file(self, key: str) -> "SpoolFile":
        try:
            return self._files[key]
        except KeyError as exc:
            raise ObjectNotFound(f"there is no {key}") from exc

    def seal(self, prefix: str) -> None:
        """Do nothing: the service seals the log."""

    def unsealed(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield nothing: the service has the logs."""
        return iter(())

    def delete(self, prefix: str) -> None:
        """Remove the log of the attempt with a prefix; safe to repeat."""
        job_id, attempt = attempt_of(prefix)
        for key in (log_key(job_id, attempt), log_index_key(job_id, attempt)):
            with translated(key, "delete"):
                self.path(key).unlink(missing_ok=True)

    def path(self, key: str) -> Path:
        """Return the path of a file; raises ``InvalidInput`` for a key that no log has."""
        return self._base / parse_log_key(key).file_name


class SpoolFile:
    """A ``LogFile`` of a spool: what is on the disk, and the rest, which the disk has not taken yet.

    One thread writes, and any may read.
    """

    def __init__(self, path: Path, descriptor: int, key: str, cutting: Cutting, failed: Failed) -> None:
        """``descriptor`` is negative for a file that could not be opened."""
        self._path = path
        self._descriptor = descriptor
        self._key = key
        self._cutting = cutting
        self._failed = failed
        self._lock = threading.Lock()
        self._on_disk_bytes = 0 if descriptor < 0 else os.fstat(descriptor).st_size
        self._rest = bytearray()
        self._problem: OSError | None = None
        self.size_bytes = self._on_disk_bytes
        """See ``LogFile.size_bytes``."""

    def write(self, data: bytes) -> None:
        """See ``LogFile.write``; raises ``LogLost`` if neither the disk nor the memory has room."""
        with self._lock:
            self._rest += data
            self.size_bytes += len(data)
            self._write_rest()
            if len(self._rest) > _MAX_REST_BYTES:
                why = "it could not be opened" if self._problem is None else self._problem.strerror
                raise LogLost(
                    f"its log does not fit on the disk of its worker ({self._path.parent}: {why}), and more "
                    f"than {format_size(_MAX_REST_BYTES)} of it are in the worker's memory; make room there"
                )

    def read(self, start: int, max_bytes: int) -> bytes:
        """Return up to ``max_bytes`` from ``start``."""
        with self._lock:
            size = max(0, min(max_bytes, self._on_disk_bytes - start))
            with translated(self._key):
                data = os.pread(self._descriptor, size, start) if size else b""
            if len(data) < size:
                raise LogLost(f"{self._path} is shorter than what was written to it: somebody has cut it off")
            at = max(0, start - self._on_disk_bytes)
            return data + bytes(self._rest[at : at + max_bytes - size])

    def cut_back(self, size_bytes: int) -> None:
        """See ``LogFile.cut_back``."""
        if size_bytes < self.size_bytes:
            with self._cutting(self._key, size_bytes), self._lock:
                if size_bytes < self._on_disk_bytes:
                    with translated(self._key):
                        os.ftruncate(self._descriptor, size_bytes)
                    self._on_disk_bytes = size_bytes
                del self._rest[size_bytes - self._on_disk_bytes :]
                self.size_bytes = size_bytes

    def close(self) -> None:
        """Do nothing: it is still read, until ``release``."""

    def release(self) -> None:
        """Close the file; safe to repeat."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def _write_rest(self) -> None:
        """Write what the disk takes. The lock is held."""
        while self._rest and self._descriptor >= 0:
            try:
                written = os.write(self._descriptor, self._rest)
            except OSError as exc:
                self._problem = exc
                self._failed(exc)
                return
            self._on_disk_bytes += written
            del self._rest[:written]
