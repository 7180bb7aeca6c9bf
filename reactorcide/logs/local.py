"""Growing logs as files in one local directory."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from reactorcide import crashpoints
from reactorcide.domain.errors import ObjectNotFound
from reactorcide.domain.logs import parse_log_key
from reactorcide.objects import ObjectStore, StoredObject
from reactorcide.objects.filesystem import FilesystemObjectStore, translated

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME = re.compile(r"([\w-]+)\.(\d+)\.(log(?:\.idx)?)", re.ASCII)


class LocalLogStore:
    """A ``LogStore`` on the directory ``base``, which seals into ``objects``.

    All files are in this one directory, so that a new one creates no other directories. It holds the logs of
    running attempts, and those that could not be sealed yet. A file takes precedence over the object.
    """

    def __init__(self, base: Path, objects: ObjectStore) -> None:
        self._base = base
        self._files = FilesystemObjectStore(base)
        self._objects = objects

    def remove_leftovers(self) -> None:
        """Remove files that a killed service was reopening. Call it before anything is written."""
        self._files.remove_leftovers()

    def append(self, key: str) -> "LocalLogFile":
        """See ``LogStore.append``."""
        name = _name(key)
        with translated(key):
            self._base.mkdir(parents=True, exist_ok=True)
            exists = os.path.lexists(self._base / name)
        if not exists:
            # A killed service sealed it, or an older version wrote it, which had only objects.
            with suppress(ObjectNotFound):
                self._files.put(name, self._objects.read(key))
        with translated(key):
            directory = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                descriptor = os.open(name, _APPEND, 0o640, dir_fd=directory)
                try:
                    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                        raise OSError(errno.EINVAL, "it is not a regular file")
                    # The name is durable from the start, the bytes from ``close`` on.
                    os.fsync(directory)
                    return LocalLogFile(key, descriptor)
                except BaseException:
                    os.close(descriptor)
                    raise
            finally:
                os.close(directory)

    def path(self, key: str) -> Path:
        """Return the path of a file that is not sealed."""
        return self._base / _name(key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``LogStore.read``."""
        # In this order: a file that is sealed in between is an object afterwards.
        with suppress(ObjectNotFound):
            return self._files.read(_name(key), start, end)
        return self._objects.read(key, start, end)

    def size(self, key: str) -> int:
        """See ``LogStore.size``."""
        with suppress(ObjectNotFound):
            return self._files.size(_name(key))
        return self._objects.size(key)

    def seal(self, prefix: str) -> None:
        """See ``LogStore.seal``."""
        for file in list(self.unsealed(prefix)):
            self._objects.put_file(file.key, self.path(file.key))
            crashpoints.reached("log-file-sealed")

    def unsealed(self, prefix: str = "") -> Iterator[StoredObject]:
        """See ``LogStore.unsealed``."""
        with translated(prefix, "list"), suppress(FileNotFoundError), os.scandir(self._base) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match is None:
                    continue
                key = f"jobs/{match[1]}/{match[2]}/{match[3]}"
                if key.startswith(prefix):
                    with suppress(FileNotFoundError):
                        yield StoredObject(key, entry.stat(follow_symlinks=False).st_size)

    def delete(self, prefix: str) -> None:
        """See ``LogStore.delete``."""
        for file in list(self.unsealed(prefix)):
            with translated(file.key, "delete"):
                self.path(file.key).unlink(missing_ok=True)


class LocalLogFile:
    """See ``LogFile``; one file, which a subclass may make durable in another way."""

    def __init__(self, key: str, descriptor: int) -> None:
        self._key = key
        self._descriptor = descriptor
        self.size_bytes = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """See ``LogFile.write``."""
        with translated(self._key):
            rest = memoryview(data)
            while rest:
                # Counted piece by piece: if the disk fills up half-way, this much has to be cut back.
                written = os.write(self._descriptor, rest)
                self.size_bytes += written
                rest = rest[written:]

    def cut_back(self, size_bytes: int) -> None:
        """See ``LogFile.cut_back``."""
        if size_bytes < self.size_bytes:
            with translated(self._key):
                os.ftruncate(self._descriptor, size_bytes)
            self.size_bytes = size_bytes

    def close(self) -> None:
        """See ``LogFile.close``."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        with translated(self._key):
            try:
                self._sync(descriptor)
            finally:
                os.close(descriptor)

    def _sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)


def _name(key: str) -> str:
    """Return the file name for a key; raises ``InvalidInput`` if it is not the key of a log."""
    return parse_log_key(key).file_name
