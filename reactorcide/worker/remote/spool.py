"""The logs of running attempts on the worker's own disk, until the service has them."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from reactorcide.domain.errors import ObjectNotFound
from reactorcide.domain.jobs import attempt_of, log_index_key, log_key
from reactorcide.domain.logs import parse_log_key
from reactorcide.logs.local import LocalLogFile
from reactorcide.objects import StoredObject
from reactorcide.objects.filesystem import translated

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 18


Cutting = Callable[[str, int], AbstractContextManager[None]]
"""Surrounds the cutting back of a file, with its key and its new length."""


class Spool:
    """A ``LogStore`` of files in one directory, which only this user can read.

    They are not made durable: what a lost machine had not sent yet, its engine has not either.
    """

    def __init__(self, base: Path, cutting: Cutting) -> None:
        self._base = base
        self._cutting = cutting

    def append(self, key: str) -> "SpoolFile":
        """See ``LogStore.append``."""
        with translated(key):
            self._base.mkdir(parents=True, exist_ok=True, mode=0o700)
            return SpoolFile(key, os.open(self.path(key), _APPEND, 0o600), self._cutting)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``LogStore.read``."""
        data = self.piece(key, start, (1 << 62) if end is None else end - start)
        return (data[at : at + _CHUNK_BYTES] for at in range(0, len(data), _CHUNK_BYTES))

    def piece(self, key: str, start: int, max_bytes: int) -> bytes:
        """Return up to ``max_bytes`` from ``start``; none for a missing file."""
        with translated(key), suppress(FileNotFoundError), self.path(key).open("rb") as file:
            file.seek(start)
            return file.read(max_bytes if max_bytes < 1 << 40 else -1)
        return b""

    def size(self, key: str) -> int:
        """See ``LogStore.size``."""
        with translated(key):
            try:
                return self.path(key).stat().st_size
            except FileNotFoundError as exc:
                raise ObjectNotFound(f"there is no {key}") from exc

    def sizes(self, job_id: str, attempt: int) -> tuple[int, int]:
        """Return the bytes of an attempt's log and of its index; the text covers all of the index."""
        sizes = []
        for key in (log_index_key(job_id, attempt), log_key(job_id, attempt)):
            try:
                sizes.append(self.size(key))
            except ObjectNotFound:
                sizes.append(0)
        return sizes[1], sizes[0]

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


class SpoolFile(LocalLogFile):
    """A file of a spool."""

    def __init__(self, key: str, descriptor: int, cutting: Cutting) -> None:
        super().__init__(key, descriptor)
        self._cutting = cutting

    def cut_back(self, size_bytes: int) -> None:
        """See ``LogFile.cut_back``."""
        if size_bytes < self.size_bytes:
            with self._cutting(self._key, size_bytes):
                super().cut_back(size_bytes)

    def _sync(self, descriptor: int) -> None:
        """Do nothing; see ``Spool``."""
