"""A directory as a tar stream, safe against changes of the directory during the walk.

Every step down uses the file descriptor of the parent directory and follows no symbolic link, and every step
up is checked. So neither a link nor a renamed directory makes the walk read files outside the source root,
and there is no gap between a check and a use.
"""

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath

from reactorcide.domain.errors import InfrastructureError, JobFailed, ReactorcideError
from reactorcide.sources.roots import Identity, SourceDirectory

CHUNK_BYTES = 256 * 1024

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking: between stat and open, a file may become a FIFO.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# The listed entry has been removed or replaced.
_VANISHED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE}


def archive(
    source: SourceDirectory,
    *,
    prefix: str,
    uid: int,
    gid: int,
    forbidden: Identity | None = None,
    check: Callable[[], None] | None = None,
) -> Iterator[bytes]:
    """Yield an uncompressed GNU tar of the files in ``source``, in chunks of at most ``CHUNK_BYTES``.

    The end of the tar is left out, so that another one may follow.

    To be unpacked at ``/``: the first entry is the directory ``prefix`` itself (an absolute path in the
    container; mode 0755), the others lie below it in sorted order. All belong to ``uid`` and ``gid``; modes,
    modification times (whole seconds) and the text of symbolic links are kept, and names byte for byte,
    also those that are not UTF-8. Hard links become files of their own; sockets, FIFOs and devices are
    left out, and so is the directory whose identity is ``forbidden``, with all below it.

    The tree may change meanwhile: a file that shrinks is padded with zeros, one that grows is
    cut at its first size, and entries that vanish are left out. Neither memory nor the number of open
    descriptors (one directory, one file) grows with a file's size or the depth of the tree. ``check`` is
    called for every entry and every piece of a file, and stops the archive by raising. Nothing is opened
    before the first chunk is requested; closing the iterator early closes everything.

    Raises ``JobFailed`` for a file without read permission, for a missing source, and for a directory that
    was moved elsewhere meanwhile; ``InfrastructureError`` when reading fails otherwise; ``ValueError`` for a
    ``prefix`` that is not absolute or contains ``..``.
    """
    buffer = bytearray()
    with closing(_Walk(source, PurePosixPath(prefix), uid, gid, forbidden).pieces()) as pieces:
        for piece in pieces:
            if check is not None:
                check()
            buffer += piece
            while len(buffer) >= CHUNK_BYTES:
                yield bytes(buffer[:CHUNK_BYTES])
                del buffer[:CHUNK_BYTES]
    yield bytes(buffer)


def empty_directories(paths: Iterable[str], uid: int, gid: int) -> Iterator[bytes]:
    """Yield directories (absolute container paths; mode 0755) that belong to ``uid`` and ``gid``.

    The end of the tar is left out. Raises nothing.
    """
    for path in paths:
        member = tarfile.TarInfo(path.strip("/"))
        member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, 0o755, uid, gid
        yield member.tobuf(tarfile.GNU_FORMAT)


@dataclass(slots=True)
class _Level:
    """A directory between the source and the current place of the walk."""

    path: bytes
    identity: Identity
    names: list[bytes]  # still to be visited, the next one last


class _Walk:
    """The walk of one archive; paths are bytes, relative to the source."""

    def __init__(
        self, source: SourceDirectory, prefix: PurePosixPath, uid: int, gid: int, forbidden: Identity | None
    ) -> None:
        if not prefix.is_absolute() or ".." in prefix.parts:
            raise ValueError(f"prefix must be an absolute path without '..', not {str(prefix)!r}")
        self._source = source
        self._prefix = b"/".join(part.encode() for part in prefix.parts[1:])
        self._uid = uid
        self._gid = gid
        self._forbidden = forbidden

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield the tar in pieces; only a long name makes a piece long, never a large file."""
        fd = self._open_source()
        try:
            if self._prefix:
                yield self._header(b"", tarfile.DIRTYPE, os.fstat(fd), mode=0o755)
            # Only the innermost directory is held open, so that no depth uses up the descriptors.
            levels = [self._level(fd, b"")]
            while levels:
                here = levels[-1]
                if not here.names:
                    levels.pop()
                    if levels:
                        parent = _open_parent(fd, here, levels[-1])
                        os.close(fd)
                        fd = parent
                    continue
                name = here.names.pop()
                path = here.path + b"/" + name if here.path else name
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        opened = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
                    elif stat.S_ISREG(status.st_mode):
                        opened = os.open(name, _OPEN_FILE, dir_fd=fd)
                    elif stat.S_ISLNK(status.st_mode):
                        target = os.readlink(name, dir_fd=fd)
                    else:
                        continue
                except OSError as error:
                    if error.errno in _VANISHED:
                        continue
                    raise _unreadable(path, error) from error
                if stat.S_ISLNK(status.st_mode):
                    yield self._header(path, tarfile.SYMTYPE, status, target=target)
                elif stat.S_ISREG(status.st_mode):
                    yield from self._file(opened, path)
                else:
                    os.close(fd)
                    fd = opened
                    status = os.fstat(fd)
                    if _identity(status) == self._forbidden:
                        levels.append(_Level(path, _identity(status), []))
                    else:
                        yield self._header(path, tarfile.DIRTYPE, status)
                        levels.append(self._level(fd, path))
        finally:
            os.close(fd)

    def _open_source(self) -> int:
        """Return a descriptor of the source, reached from its root without following a link."""
        try:
            fd = os.open(self._source.root, _OPEN_DIRECTORY)
            try:
                for part in self._source.parts:
                    self._refuse_forbidden(fd)
                    child = os.open(part, _OPEN_DIRECTORY, dir_fd=fd)
                    os.close(fd)
                    fd = child
                self._refuse_forbidden(fd)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            if error.errno in _VANISHED:
                raise JobFailed("the source directory no longer exists") from error
            raise _unreadable(b"", error) from error
        return fd

    def _refuse_forbidden(self, fd: int) -> None:
        if _identity(os.fstat(fd)) == self._forbidden:
            raise JobFailed("the source directory no longer exists")

    def _level(self, fd: int, path: bytes) -> _Level:
        try:
            names = sorted(map(os.fsencode, os.listdir(fd)), reverse=True)
        except OSError as error:
            raise _unreadable(path, error) from error
        return _Level(path, _identity(os.fstat(fd)), names)

    def _file(self, fd: int, path: bytes) -> Iterator[bytes]:
        """Yield the entry of the open file ``fd``, which it closes."""
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            yield self._header(path, tarfile.REGTYPE, status, size_bytes=status.st_size)
            remaining_bytes = status.st_size
            while remaining_bytes:
                size = min(remaining_bytes, CHUNK_BYTES)
                try:
                    # If the file has shrunk, pad it to the size in its header.
                    data = os.read(fd, size) or bytes(size)
                except OSError as error:
                    raise _unreadable(path, error) from error
                remaining_bytes -= len(data)
                yield data
            yield bytes(-status.st_size % tarfile.BLOCKSIZE)
        finally:
            os.close(fd)

    def _header(
        self,
        path: bytes,
        kind: bytes,
        status: os.stat_result,
        *,
        mode: int | None = None,
        size_bytes: int = 0,
        target: bytes = b"",
    ) -> bytes:
        entry = tarfile.TarInfo(_text(b"/".join(part for part in (self._prefix, path) if part)))
        entry.type = kind
        entry.mode = stat.S_IMODE(status.st_mode) if mode is None else mode
        entry.mtime = status.st_mtime_ns // 10**9
        entry.uid, entry.gid = self._uid, self._gid
        entry.size = size_bytes
        entry.linkname = _text(target)
        # GNU, not PAX: its long names are plain bytes, in any encoding.
        return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _open_parent(fd: int, here: _Level, parent: _Level) -> int:
    """Return a descriptor of the parent of ``fd``, which must be the directory that the walk came from."""
    up = -1
    try:
        up = os.open("..", _OPEN_DIRECTORY, dir_fd=fd)
        if _identity(os.fstat(up)) == parent.identity:
            return up
    except OSError as error:
        raise _unreadable(here.path + b"/..", error) from error
    os.close(up)
    raise JobFailed(f"{_quoted(here.path)} of the source was moved away while it was being copied")


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _unreadable(path: bytes, error: OSError) -> ReactorcideError:
    message = f"{_quoted(path)} of the source cannot be read: {os.strerror(error.errno or 0)}"
    return JobFailed(message) if isinstance(error, PermissionError) else InfrastructureError(message)


def _quoted(path: bytes) -> str:
    return f'"{(path or b".").decode(errors="replace")}"'
