"""Growing logs as rows of the job database, so that every service on it can read them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from reactorcide import crashpoints
from reactorcide.domain.errors import (
    LogTaken,
    LogUnavailable,
    ObjectChanged,
    ObjectNotFound,
    ObjectStoreError,
    StoreError,
)
from reactorcide.domain.logs import GrowingLog, LogName, parse_log_key, parse_log_prefix
from reactorcide.lib.ids import new_id
from reactorcide.objects import ObjectStore, StoredObject

_GATHERED_BYTES = 1 << 14
"""Pieces up to this length are gathered to longer ones, so that a log of short lines is not a row each."""
_SEAL_TRIES = 5
_WRITE_BYTES = 1 << 20
"""The most that one transaction appends: other writers wait for it."""


class Pieces(Protocol):
    """Where the rows are; see ``store.log_pieces.LogPieces``. Raises ``StoreError``."""

    def find(self, log: LogName) -> GrowingLog | None:
        """Return a file, if it exists here."""

    def open(self, log: LogName, writer: str, *, size_bytes: int | None) -> GrowingLog | None:
        """Make ``writer`` the one who writes a file, and return the file."""

    def add(
        self, log: LogName, writer: str, end: int, data: bytes, *, merged_from: int, merged: bytes
    ) -> bool:
        """Append to a file that ends at ``end``; returns whether the file was as described."""

    def sync(self, log: LogName, writer: str) -> None:
        """Make durable what ``writer`` has appended."""

    def cut_back(self, log: LogName, writer: str, size_bytes: int) -> bool:
        """Remove all but the first bytes; returns whether the file was as described."""

    def read(self, log: LogName, start: int, end: int) -> list[tuple[int, bytes]]:
        """Return the next few pieces of a part, each with its offset."""

    def remove(self, log: LogName, writer: str, size_bytes: int) -> bool:
        """Remove a file, if it is as described; returns whether it was removed."""

    def delete(self, job_id: str | None, attempt: int | None) -> None:
        """Remove the files of a job or an attempt; safe to repeat."""

    def list(self, job_id: str | None, attempt: int | None) -> Iterator[tuple[LogName, int]]:
        """Yield the files of a job or an attempt, with their sizes."""


class RowLogStore:
    """A ``LogStore`` on the job database, which seals into ``objects``.

    What was written outlives the service, and from ``close`` on a crash of the database server. A file takes
    precedence over the object under its key. One that is
    reopened keeps its first bytes in the object, and only the new ones are rows.

    Who opens or seals a file takes it from its writer before, whose next write is a ``LogTaken``: so
    two services never write to one log, even if one of them was taken for dead.
    """

    def __init__(self, pieces: Pieces, objects: ObjectStore) -> None:
        self._pieces = pieces
        self._objects = objects

    def remove_leftovers(self) -> None:
        """Do nothing: a killed service leaves no incomplete files here."""

    def append(self, key: str) -> "_RowLogFile":
        """See ``LogStore.append``."""
        log, writer = parse_log_key(key), new_id()
        with _translated(key):
            growing = self._pieces.open(log, writer, size_bytes=None)
            if growing is None:
                growing = self._pieces.open(log, writer, size_bytes=self._object_bytes(key))
        if growing is None:
            raise _taken(log)
        return _RowLogFile(self._pieces, log, growing)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``LogStore.read``."""
        log = parse_log_key(key)
        with _translated(key):
            growing = self._pieces.find(log)
        if growing is None:
            return self._objects.read(key, start, end)
        end = growing.size_bytes if end is None else min(end, growing.size_bytes)
        first = self._next_chunks(log, growing, start, end)
        return self._chunks(log, growing, start, end, first)

    def size(self, key: str) -> int:
        """See ``LogStore.size``."""
        with _translated(key):
            growing = self._pieces.find(parse_log_key(key))
        return self._objects.size(key) if growing is None else growing.size_bytes

    def seal(self, prefix: str) -> None:
        """See ``LogStore.seal``. Several services may do it at once."""
        for file in list(self.unsealed(prefix)):
            log = parse_log_key(file.key)
            for more_tries in reversed(range(_SEAL_TRIES)):
                try:
                    self._seal(log)
                    break
                except ObjectChanged:
                    if not more_tries:
                        raise

    def _seal(self, log: LogName) -> None:
        # Before the file is taken: whoever takes it later makes another object, which this one, however late
        # it arrives, does not replace.
        tag = self._objects.tag(log.key)
        with _translated(log.key):
            # Nothing is appended to it from now on, but by one who opens it again.
            growing = self._pieces.open(log, new_id(), size_bytes=None)
        if growing is None:
            return
        try:
            if growing.base_bytes < growing.size_bytes or self._object_bytes(log.key) != growing.size_bytes:
                self._objects.replace(log.key, self._whole(log, growing), tag)
                crashpoints.reached("log-rows-sealed")
        except _Gone:
            # Another service was faster: it has the same bytes.
            return
        with _translated(log.key):
            self._pieces.remove(log, growing.writer, growing.size_bytes)

    def unsealed(self, prefix: str = "") -> Iterator[StoredObject]:
        """See ``LogStore.unsealed``."""
        files = self._pieces.list(*parse_log_prefix(prefix))
        while True:
            with _translated(prefix or "the logs"):
                file = next(files, None)
            if file is None:
                return
            yield StoredObject(file[0].key, file[1])

    def delete(self, prefix: str) -> None:
        """See ``LogStore.delete``."""
        with _translated(prefix):
            self._pieces.delete(*parse_log_prefix(prefix))

    def _object_bytes(self, key: str) -> int:
        with suppress(ObjectNotFound):
            return self._objects.size(key)
        return 0

    def _whole(self, log: LogName, growing: GrowingLog) -> Iterator[bytes]:
        """Yield all bytes of a file, or raise ``_Gone`` if it was sealed or opened by another meanwhile."""
        at, end = 0, growing.size_bytes
        if growing.base_bytes:
            for chunk in self._objects.read(log.key, 0, growing.base_bytes):
                at += len(chunk)
                yield chunk
        while at < end:
            pieces = self._next_pieces(log, at, end)
            for chunk in pieces:
                at += len(chunk)
                yield chunk
            if not pieces:
                with _translated(log.key):
                    current = self._pieces.find(log)
                if current == growing:
                    raise _damaged(log, at, growing)
                raise _Gone(f"the log {log.key} is sealed by another service")

    def _chunks(
        self, log: LogName, growing: GrowingLog | None, at: int, end: int, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        """Yield what is left of a part of a file, whose next bytes are ``chunks``."""
        while True:
            before = at
            for chunk in chunks:
                at += len(chunk)
                yield chunk
            if at >= end or growing is None:
                return
            if at == before:
                # It was sealed meanwhile, and perhaps opened again, or cut back.
                with _translated(log.key):
                    current = self._pieces.find(log)
                if current == growing and at < growing.size_bytes:
                    raise _damaged(log, at, growing)
                growing = current
                end = end if growing is None else min(end, growing.size_bytes)
            chunks = self._next_chunks(log, growing, at, end)

    def _next_chunks(self, log: LogName, growing: GrowingLog | None, at: int, end: int) -> Iterator[bytes]:
        """Return the next bytes of a file: all that are in its object, or of its next pieces."""
        if at >= end:
            return iter(())
        if growing is None:
            return self._objects.read(log.key, at, end)
        if at < growing.base_bytes:
            return self._objects.read(log.key, at, min(end, growing.base_bytes))
        return iter(self._next_pieces(log, at, end))

    def _next_pieces(self, log: LogName, at: int, end: int) -> list[bytes]:
        """Return the pieces from ``at`` on, as many as follow each other."""
        with _translated(log.key):
            pieces = self._pieces.read(log, at, end)
        following = []
        for start, data in pieces:
            if start != at or not data:
                break
            following.append(data)
            at += len(data)
        return following


class _RowLogFile:
    """See ``LogFile``. The last short pieces are kept in memory, to be gathered with what follows them."""

    def __init__(self, pieces: Pieces, log: LogName, growing: GrowingLog) -> None:
        self._pieces = pieces
        self._log = log
        self._writer = growing.writer
        self.size_bytes = growing.size_bytes
        self._short: list[tuple[int, bytes]] = []
        self._is_open = True
        self._is_certain = True
        """Whether the size is the one in the database; after an error a write may have happened or not."""

    def write(self, data: bytes) -> None:
        """See ``LogFile.write``."""
        for start in range(0, len(data), _WRITE_BYTES):
            self._write(data[start : start + _WRITE_BYTES])

    def _write(self, data: bytes) -> None:
        self._settle()
        kept = self._short[:]
        merged_from, merged = self.size_bytes, b""
        # Only with pieces that are not much longer: then a byte is written a few times at most.
        while kept and len(kept[-1][1]) <= len(merged) + len(data) <= _GATHERED_BYTES - len(kept[-1][1]):
            merged_from, last = kept.pop()
            merged = last + merged
        self._change(
            lambda: self._pieces.add(
                self._log, self._writer, self.size_bytes, data, merged_from=merged_from, merged=merged
            )
        )
        self.size_bytes += len(data)
        text = merged + data
        self._short = [*kept, (merged_from, text)] if len(text) < _GATHERED_BYTES else []

    def cut_back(self, size_bytes: int) -> None:
        """See ``LogFile.cut_back``."""
        self._settle()
        if size_bytes < self.size_bytes:
            self._change(lambda: self._pieces.cut_back(self._log, self._writer, size_bytes))
            self.size_bytes = size_bytes
            self._short = []

    def close(self) -> None:
        """See ``LogFile.close``."""
        if self._is_open:
            with _translated(self._log.key):
                self._pieces.sync(self._log, self._writer)
            self._is_open = False

    def _change(self, work: Callable[[], bool]) -> None:
        self._is_certain = False
        with _translated(self._log.key):
            is_done = work()
        if not is_done:
            raise _taken(self._log)
        self._is_certain = True

    def _settle(self) -> None:
        """After an error, look how long the file is."""
        if self._is_certain:
            return
        with _translated(self._log.key):
            growing = self._pieces.find(self._log)
        if growing is None or growing.writer != self._writer:
            raise _taken(self._log)
        self.size_bytes, self._short, self._is_certain = growing.size_bytes, [], True


class _Gone(ObjectStoreError):
    """A log that is to be sealed is sealed already, or is written again."""


def _damaged(log: LogName, at: int, growing: GrowingLog) -> ObjectStoreError:
    return ObjectStoreError(
        f"the log {log.key} has {growing.size_bytes} bytes, and the database has none of those from {at} on"
    )


def _taken(log: LogName) -> LogTaken:
    return LogTaken(
        f"the log {log.key} is written by another service now, or was sealed or removed: this one may not "
        "append to it any more"
    )


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except StoreError as exc:
        raise LogUnavailable(f"{key}: {exc}") from exc
