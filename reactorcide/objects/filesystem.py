"""Objects as files below one directory."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from reactorcide.domain.errors import ObjectNotFound, ObjectStoreError
from reactorcide.lib.sizes import MIN_FILE_BYTES, format_size
from reactorcide.objects import RESERVED, StoredObject, key_parts

_CHUNK_BYTES = 1 << 18

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# No link is ever stored, so one that is met was put there by somebody else; as may be a FIFO, which blocks.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FilesystemObjectStore:
    """An ``ObjectStore`` on a local directory: the key is the path.

    A whole object is written to ``.tmp`` beside the keys (so on the same filesystem), synced and
    renamed: nobody ever sees half of it. Each directory on the way is opened from the one above, and no link
    is followed: none that somebody has planted leads out.
    """

    def __init__(self, base: Path, *, least_free_bytes: int = 0) -> None:
        self._base = base
        self._least_free_bytes = least_free_bytes

    def remove_leftovers(self) -> None:
        """Remove what writers that were killed have left half-written; only before anybody writes."""
        with translated("to its directory"), suppress(FileNotFoundError):
            shutil.rmtree(self._base / RESERVED)

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """See ``ObjectStore.put``; an error of ``chunks`` itself passes through and stores nothing."""
        *parents, name = key_parts(key)
        temporary = secrets.token_hex(16)
        size_bytes = 0
        with translated(key), self._directory([RESERVED], make=True) as workshop:
            descriptor = os.open(temporary, _CREATE, 0o640, dir_fd=workshop)
        try:
            # Without a buffer, which closing would try to write again, with an error that is not translated.
            with open(descriptor, "wb", buffering=0) as file:
                for chunk in chunks:
                    with translated(key):
                        _write(file, chunk)
                    size_bytes += len(chunk)
                with translated(key):
                    os.fdatasync(file.fileno())
            with (
                translated(key),
                self._directory([RESERVED]) as workshop,
                self._directory(parents, make=True) as home,
            ):
                os.replace(temporary, name, src_dir_fd=workshop, dst_dir_fd=home)
                os.fsync(home)
        except BaseException:
            with suppress(OSError), self._directory([RESERVED]) as workshop:
                os.unlink(temporary, dir_fd=workshop)
            raise
        return size_bytes

    def put_file(self, key: str, path: Path) -> None:
        """See ``ObjectStore.put_file``; a rename where the file is on the same file system."""
        *parents, name = key_parts(key)
        with translated(key), self._directory(parents, make=True) as home:
            try:
                os.replace(path, name, dst_dir_fd=home)
            except OSError as exc:
                if exc.errno != errno.EXDEV:
                    raise
            else:
                os.fsync(home)
                return
        with translated(key), path.open("rb") as file:
            self.put(key, iter(lambda: file.read(_CHUNK_BYTES), b""))
            path.unlink()

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        chunks = _read(key, self._open_for_reading(key), start, end)
        # Begun, so that whoever closes it closes the file, too.
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
        """See ``ObjectStore.list``; what comes or goes meanwhile may be in it or not."""
        for key, status in self._below(prefix, "list"):
            if stat.S_ISREG(status.st_mode):
                yield StoredObject(key, status.st_size)

    def used_bytes(self, prefix: str) -> int:
        """See ``ObjectStore.used_bytes``; the directories that keys have become count, too."""
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
            self._directory(parents) as home,
        ):
            while True:
                # Missing may be something within it, which somebody else deletes at the same time.
                with suppress(FileNotFoundError):
                    shutil.rmtree(name, dir_fd=home)
                os.stat(name, dir_fd=home, follow_symlinks=False)

    def check(self) -> None:
        """See ``ObjectStore.check``; a disk that is nearly full counts as trouble."""
        self.check_room()
        probe = secrets.token_hex(16)
        with translated("a test object"), self._directory([RESERVED], make=True) as workshop:
            descriptor = os.open(probe, _CREATE, 0o640, dir_fd=workshop)
            try:
                os.write(descriptor, b"x")
            finally:
                os.close(descriptor)
                os.unlink(probe, dir_fd=workshop)

    def check_room(self) -> None:
        """Raise ``ObjectStoreError`` where the disk has less free space than the operator wants."""
        with translated("to its directory"):
            self._base.mkdir(parents=True, exist_ok=True)
            free_bytes = shutil.disk_usage(self._base).free
        if free_bytes < self._least_free_bytes:
            raise ObjectStoreError(
                f"the disk is low: {self._base} has {format_size(free_bytes)} free, and no job is started "
                f"below {format_size(self._least_free_bytes)}; make room, or lower --min-free-disk"
            )

    def _below(self, prefix: str, action: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the key and the status of each file below a prefix, and those of each directory."""
        parts = key_parts(prefix.removesuffix("/"))
        with (
            translated(prefix, action),
            suppress(FileNotFoundError, NotADirectoryError),
            self._directory(parts) as top,
        ):
            for directory, _, names, descriptor in os.fwalk(".", dir_fd=top, onerror=_unless_gone):
                home = os.path.normpath(os.path.join(*parts, directory))
                yield home, os.fstat(descriptor)
                for name in names:
                    with suppress(FileNotFoundError):
                        yield f"{home}/{name}", os.stat(name, dir_fd=descriptor, follow_symlinks=False)

    @contextmanager
    def _directory(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Give a descriptor of a directory, made durably where it is missing; raises ``OSError``."""
        if make:
            self._base.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                try:
                    below = os.open(part, _OPEN_DIRECTORY, dir_fd=descriptor)
                except FileNotFoundError:
                    if not make:
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
            with self._directory(parents) as home:
                descriptor = os.open(name, _OPEN_FILE, dir_fd=home)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise ObjectNotFound(f"there is no object {key}") from exc
        except OSError as exc:
            raise ObjectStoreError(f"the object {key} cannot be read: {exc.strerror}") from exc
        raise ObjectNotFound(f"there is no object {key}")


class translated:
    """Turns an ``OSError`` of the body into an ``ObjectStoreError`` that names the object."""

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


def _write(file: FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _read(key: str, descriptor: int, start: int, end: int | None) -> Iterator[bytes]:
    """Yield an empty chunk, then bytes of an open file; close it, also when the reader stops half-way."""
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


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
