"""Objects as files below one directory."""

import errno
import os
import resource
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from io import FileIO
from pathlib import Path

from reactorcide.domain.errors import ObjectChanged, ObjectNotFound, ObjectStoreError
from reactorcide.lib.sizes import MIN_FILE_BYTES, format_size
from reactorcide.objects import RESERVED, StoredObject, key_parts

_CHUNK_BYTES = 1 << 18

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Links are never stored, so a link here was planted; so may be a FIFO, which would block.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FilesystemObjectStore:
    """An ``ObjectStore`` on a local directory: the key is the path.

    An object is written to ``.tmp`` in the same directory (so on the same file system), synced and renamed,
    so that readers never see a part of it. Each directory is opened from its parent without following links,
    so that a planted link leads nowhere.
    """

    def __init__(self, base: Path, *, min_free_bytes: int = 0) -> None:
        self._base = base
        self._min_free_bytes = min_free_bytes
        self._replacing = threading.Lock()

    def remove_leftovers(self, min_age_s: float = 0) -> None:
        """See ``ObjectStore.remove_leftovers``; the age of a file is the time since it was last written."""
        before_s = time.time() - min_age_s
        with (
            translated("to its directory"),
            suppress(FileNotFoundError),
            self._directory([RESERVED]) as temporary_dir,
        ):
            for name in os.listdir(temporary_dir):
                # Its writer may rename it, or remove it, at the same time.
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=temporary_dir, follow_symlinks=False)
                    if min_age_s == 0 or status.st_mtime <= before_s:
                        os.unlink(name, dir_fd=temporary_dir)

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """See ``ObjectStore.put``; an error of ``chunks`` itself passes through and stores nothing."""
        return self._put(key, chunks, nullcontext())

    def tag(self, key: str) -> str | None:
        """See ``ObjectStore.tag``."""
        try:
            descriptor = self._open_for_reading(key)
        except ObjectNotFound:
            return None
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"

    def replace(self, key: str, chunks: Iterable[bytes], tag: str | None) -> int:
        """See ``ObjectStore.replace``; only this process writes here."""

        @contextmanager
        def unchanged() -> Iterator[None]:
            with self._replacing:
                if self.tag(key) != tag:
                    raise ObjectChanged(f"the object {key} is another one by now")
                yield

        return self._put(key, chunks, unchanged())

    def _put(self, key: str, chunks: Iterable[bytes], replacing: AbstractContextManager[None]) -> int:
        *parents, name = key_parts(key)
        temporary = secrets.token_hex(16)
        size_bytes = 0
        with translated(key), self._directory([RESERVED], create=True) as temporary_dir:
            descriptor = os.open(temporary, _CREATE, 0o640, dir_fd=temporary_dir)
        try:
            # Unbuffered: closing would write a buffer once more, and raise an error that is not translated.
            with open(descriptor, "wb", buffering=0) as file:
                for chunk in chunks:
                    with translated(key):
                        _write(file, chunk)
                    size_bytes += len(chunk)
                with translated(key):
                    os.fdatasync(file.fileno())
            with (
                translated(key),
                self._directory([RESERVED]) as temporary_dir,
                self._directory(parents, create=True) as parent,
                replacing,
            ):
                os.replace(temporary, name, src_dir_fd=temporary_dir, dst_dir_fd=parent)
                os.fsync(parent)
        except BaseException:
            with suppress(OSError), self._directory([RESERVED]) as temporary_dir:
                os.unlink(temporary, dir_fd=temporary_dir)
            raise
        return size_bytes

    def put_file(self, key: str, path: Path) -> None:
        """See ``ObjectStore.put_file``; a rename if the file is on the same file system."""
        *parents, name = key_parts(key)
        with translated(key), self._directory(parents, create=True) as parent:
            try:
                os.replace(path, name, dst_dir_fd=parent)
            except OSError as exc:
                if exc.errno != errno.EXDEV:
                    raise
            else:
                os.fsync(parent)
                return
        with translated(key), path.open("rb") as file:
            self.put(key, iter(lambda: file.read(_CHUNK_BYTES), b""))
            path.unlink()

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        chunks = _read(key, self._open_for_reading(key), start, end)
        # Started, so that closing the iterator closes the file.
        next(chunks)
        return chunks

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        descriptor = self._open_for_reading(key)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See ``ObjectStore.list``; objects added or removed meanwhile may be listed or not."""
        for key, status in self._below(prefix, "list"):
            if stat.S_ISREG(status.st_mode):
                yield StoredObject(key, status.st_size)

    def used_bytes(self, prefix: str) -> int:
        """See ``ObjectStore.used_bytes``; the directories of keys count, too."""
        return sum(
            MIN_FILE_BYTES if stat.S_ISDIR(status.st_mode) else max(MIN_FILE_BYTES, status.st_size)
            for _, status in self._below(prefix, "measure")
        )

    def delete(self, prefix: str) -> None:
        """See ``ObjectStore.delete``."""
        *parents, name = key_parts(prefix.removesuffix("/"))
        with (
            translated(prefix, "delete"),
            suppress(FileNotFoundError, NotADirectoryError),
            self._directory(parents) as parent,
        ):
            while True:
                # A file below may be missing because another thread deletes it at the same time.
                with suppress(FileNotFoundError):
                    shutil.rmtree(name, dir_fd=parent)
                os.stat(name, dir_fd=parent, follow_symlinks=False)

    def check(self) -> None:
        """See ``ObjectStore.check``; a disk that is nearly full is an error."""
        check_room(self._base, self._min_free_bytes)
        probe = secrets.token_hex(16)
        with translated("a test object"), self._directory([RESERVED], create=True) as temporary_dir:
            descriptor = os.open(probe, _CREATE, 0o640, dir_fd=temporary_dir)
            try:
                os.write(descriptor, b"x")
            finally:
                os.close(descriptor)
                os.unlink(probe, dir_fd=temporary_dir)

    def _below(self, prefix: str, action: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the key and the status of each file and each directory below a prefix."""
        parts = key_parts(prefix.removesuffix("/"))
        with (
            translated(prefix, action),
            suppress(FileNotFoundError, NotADirectoryError),
            self._directory(parts) as top,
        ):
            for directory, _, names, descriptor in os.fwalk(".", dir_fd=top, onerror=_unless_missing):
                above = os.path.normpath(os.path.join(*parts, directory))
                yield above, os.fstat(descriptor)
                for name in names:
                    with suppress(FileNotFoundError):
                        yield f"{above}/{name}", os.stat(name, dir_fd=descriptor, follow_symlinks=False)

    @contextmanager
    def _directory(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """Give a descriptor of a directory; with ``create`` a missing one is created. Raises ``OSError``."""
        if create:
            self._base.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                try:
                    below = os.open(part, _OPEN_DIRECTORY, dir_fd=descriptor)
                except FileNotFoundError:
                    if not create:
                        raise
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                    os.fsync(descriptor)
                    below = os.open(part, _OPEN_DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_for_reading(self, key: str) -> int:
        *parents, name = key_parts(key)
        try:
            with self._directory(parents) as parent:
                descriptor = os.open(name, _OPEN_FILE, dir_fd=parent)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise ObjectNotFound(f"there is no object {key}") from exc
        except OSError as exc:
            raise ObjectStoreError(f"the object {key} cannot be read: {exc.strerror}") from exc
        raise ObjectNotFound(f"there is no object {key}")


class translated:
    """Turn an ``OSError`` of the body into an ``ObjectStoreError`` that names the object."""

    def __init__(self, key: str, action: str = "write") -> None:
        self._key = key
        self._action = action

    def __enter__(self) -> None:
        return None

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, OSError):
            raise ObjectStoreError(
                f"the object store could not {self._action} {self._key}: {exc.strerror or exc}"
            ) from exc


def check_room(directory: Path, min_free_bytes: int) -> None:
    """Raise ``ObjectStoreError`` if a directory's disk has less free, or one file may have less."""
    with translated("to its directory"):
        directory.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(directory).free
    if free_bytes < min_free_bytes:
        raise ObjectStoreError(
            f"the disk is low: {directory} has {format_size(free_bytes)} free, and no job is started "
            f"below {format_size(min_free_bytes)}; make room, or lower --min-free-disk"
        )
    file_bytes, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if file_bytes != resource.RLIM_INFINITY and file_bytes < min_free_bytes:
        raise ObjectStoreError(
            f"this process may write no file of more than {format_size(file_bytes)} (ulimit -f), and no "
            f"job is started below {format_size(min_free_bytes)}; raise it or lower --min-free-disk"
        )


def _write(file: FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _read(key: str, descriptor: int, start: int, end: int | None) -> Iterator[bytes]:
    """Yield an empty chunk, then bytes of an open file; close it, even if the reader stops early."""
    with open(descriptor, "rb", buffering=0) as file:
        yield b""
        stop = os.fstat(descriptor).st_size if end is None else end
        position = start
        while position < stop:
            try:
                chunk = os.pread(file.fileno(), min(_CHUNK_BYTES, stop - position), position)
            except OSError as exc:
                raise ObjectStoreError(f"the object {key} cannot be read: {exc.strerror}") from exc
            if not chunk:
                return
            position += len(chunk)
            yield chunk


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
