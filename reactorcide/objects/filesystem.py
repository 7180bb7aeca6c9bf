"""Objects as files below one directory."""

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reactorcide.domain.errors import InvalidInput, ObjectNotFound, ObjectStoreError
from reactorcide.domain.sizes import format_size
from reactorcide.objects import StoredObject

_CHUNK_BYTES = 1 << 18


class FilesystemObjectStore:
    """An ``ObjectStore`` on a local directory: the key is the path.

    A whole object is written to ``.tmp`` beside the keys (so on the same filesystem), synced and
    renamed: nobody ever sees half of it.
    """

    def __init__(self, base: Path, *, least_free_bytes: int = 0) -> None:
        self._base = base
        self._least_free_bytes = least_free_bytes
        self._temporary = base / ".tmp"

    def remove_leftovers(self) -> None:
        """Remove what writers that were killed have left half-written; only before anybody writes."""
        with _translated("to its directory"):
            shutil.rmtree(self._temporary, onerror=_unless_gone)

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """See ``ObjectStore.put``; an error of ``chunks`` itself passes through and stores nothing."""
        target = self._path(key)
        temporary = self._temporary / secrets.token_hex(16)
        size_bytes = 0
        with _open(temporary, "xb") as file:
            try:
                for chunk in chunks:
                    with _translated(key):
                        file.write(chunk)
                    size_bytes += len(chunk)
                with _translated(key):
                    file.flush()
                    os.fdatasync(file.fileno())
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(temporary, target)
                    _sync_directory(target.parent)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return size_bytes

    def append(self, key: str) -> "_FileAppender":
        """See ``ObjectStore.append``."""
        path = self._path(key)
        with _translated(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            return _FileAppender(path)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        descriptor = self._open_for_reading(key)
        return _read(descriptor, start, end)

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        descriptor = self._open_for_reading(key)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See ``ObjectStore.list``."""
        for directory, _, names in os.walk(self._path(prefix.removesuffix("/"))):
            for name in names:
                path = Path(directory, name)
                try:
                    size_bytes = path.stat().st_size
                except FileNotFoundError:
                    # Somebody is deleting it.
                    continue
                yield StoredObject(str(path.relative_to(self._base)), size_bytes)

    def delete(self, prefix: str) -> None:
        """See ``ObjectStore.delete``."""
        with _translated(prefix):
            shutil.rmtree(self._path(prefix.removesuffix("/")), onerror=_unless_gone)

    def check(self) -> None:
        """See ``ObjectStore.check``; a disk that is nearly full counts as trouble."""
        self.check_room()
        with _translated("a test object"):
            self._temporary.mkdir(parents=True, exist_ok=True)
            probe = self._temporary / secrets.token_hex(16)
            try:
                probe.write_bytes(b"x")
            finally:
                probe.unlink(missing_ok=True)

    def check_room(self) -> None:
        """Raise ``ObjectStoreError`` where the disk has less free space than the operator wants."""
        with _translated("to its directory"):
            self._base.mkdir(parents=True, exist_ok=True)
            free_bytes = shutil.disk_usage(self._base).free
        if free_bytes < self._least_free_bytes:
            raise ObjectStoreError(
                f"the disk is low: {self._base} has {format_size(free_bytes)} free, and no job is started "
                f"below {format_size(self._least_free_bytes)}; make room, or lower --min-free-disk"
            )

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if "\0" in key or any(part in ("", ".", "..") for part in parts) or parts[0] == ".tmp":
            raise InvalidInput(f"{key!r} is not an object key")
        return self._base.joinpath(*parts)

    def _open_for_reading(self, key: str) -> int:
        try:
            # No link is ever stored, so one that is met was put there by somebody else.
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise ObjectNotFound(f"there is no object {key}") from exc
        except OSError as exc:
            raise ObjectStoreError(f"the object {key} cannot be read: {exc.strerror}") from exc
        return descriptor


class _FileAppender:
    """See ``Appender``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size_bytes = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """See ``Appender.write``."""
        with _translated(self._path.name):
            rest = data
            while rest:
                # Counted as it goes: where the disk is full half-way, that much has to be cut back.
                written = os.write(self._descriptor, rest)
                self.size_bytes += written
                rest = rest[written:]

    def cut_back(self, size_bytes: int) -> None:
        """See ``Appender.cut_back``."""
        if size_bytes < self.size_bytes:
            with _translated(self._path.name):
                os.ftruncate(self._descriptor, size_bytes)
            self.size_bytes = size_bytes

    def close(self) -> None:
        """See ``Appender.close``."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        with _translated(self._path.name):
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            _sync_directory(self._path.parent)


class _translated:
    """Turns an ``OSError`` of the body into an ``ObjectStoreError`` that names the object."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, OSError):
            raise ObjectStoreError(
                f"the object store could not write {self._key}: {exc.strerror or exc}"
            ) from exc


def _unless_gone(call: object, path: str, error: tuple[Any, BaseException, Any]) -> None:
    """Go on with the rest where somebody else deletes the same: what is gone is gone."""
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def _open(path: Path, mode: str):  # type: ignore[no-untyped-def]  # the overloads of open() say it better
    with _translated(path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, mode)


def _read(descriptor: int, start: int, end: int | None) -> Iterator[bytes]:
    """Yield bytes of an open file and close it, also when the reader stops half-way."""
    with open(descriptor, "rb", buffering=0) as file:
        stop = os.fstat(descriptor).st_size if end is None else end
        position = start
        while position < stop:
            chunk = os.pread(file.fileno(), min(_CHUNK_BYTES, stop - position), position)
            if not chunk:
                return
            position += len(chunk)
            yield chunk


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
