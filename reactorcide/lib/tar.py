"""Reading and writing untrusted tar archives as streams.

Nothing is unpacked on this host, and memory grows neither with the size of a file nor with the archive.
"""

import hashlib
import secrets
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from reactorcide.lib.records import record

CHUNK_BYTES = 1 << 18
MAX_PATH_BYTES = 1024
"""The longest path in an archive, and the longest target of a link. It fits in a URL, in an object's key, and
below the directory in which the archive is unpacked."""
MAX_NAME_BYTES = 255
"""The longest name in a path that every file system accepts."""
MAX_DEPTH = 120
"""Names in a path."""
_MAX_HEADER_BYTES = 1 << 16
"""The size of all headers before a member together, such as those of its long name."""
_DIGEST_BYTES = 8
"""One in 100 million archives of 500,000 paths has two paths with the same digest, and is refused."""
_LATEST_S = 8**11 - 1
"""The last second that every tar format can store."""

Kind = Literal["file", "directory", "symlink", "hardlink", "other"]

_EXTENDING = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

# Missing in the stubs, like much of what is used here.
_EndOfArchive: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]


class DamagedTar(Exception):
    """The input is not a tar, or an incomplete one. Callers of this module translate it."""


@record(kw_only=True)
class Entry:
    """One member of an archive."""

    path: str
    """As in the archive, unchecked; bytes that are not UTF-8 are surrogates."""
    kind: Kind
    mode: int = 0o644
    modified_s: int = 0
    size_bytes: int = 0
    target: str = ""
    """The target of a link, as in the archive."""
    chunks: Iterable[bytes] = ()
    """The content of a file; to be read before the next member, or not at all."""


def read_tar(chunks: Iterator[bytes]) -> Iterator[Entry]:
    """Yield the members of an uncompressed tar. Raises ``DamagedTar``, and what ``chunks`` raises."""
    stream: Any = _Reader(chunks)  # has the only method that tarfile calls
    try:
        with _Archive.open(
            fileobj=stream,
            mode="r|",
            bufsize=CHUNK_BYTES,
            encoding="utf-8",
            errors="surrogateescape",
            tarinfo=_Member,
        ) as archive:
            while (member := archive.next()) is not None:
                # tarfile would keep all of them in memory.
                archive.members.clear()  # type: ignore[attr-defined]  # missing in the stubs
                content = _content(archive, member)
                yield Entry(
                    path=member.name,
                    kind=_kind(member),
                    mode=member.mode & 0o7777,
                    modified_s=min(max(0, int(member.mtime)), _LATEST_S),
                    size_bytes=member.size if member.isreg() else 0,
                    target=member.linkname,
                    chunks=content,
                )
                # Read the rest here: tarfile's own skipping does not notice the end of the data.
                for _ in content:
                    pass
    except (tarfile.TarError, EOFError, RecursionError, ValueError, OverflowError) as exc:
        raise DamagedTar(" ".join(str(exc).split())) from exc


def gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield decompressed data in pieces of at most ``CHUNK_BYTES``; raises ``DamagedTar``."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                if unpacker.eof:
                    # gzip files may follow one another.
                    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
                if piece := unpacker.decompress(rest, CHUNK_BYTES):
                    yield piece
                rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except zlib.error as exc:
        raise DamagedTar("it is not gzip") from exc
    if not unpacker.eof:
        raise DamagedTar("it ends in the middle")


def write_entry(entry: Entry, path: str, *, uid: int = 0, gid: int = 0, target: str = "") -> Iterator[bytes]:
    """Yield a tar member for an entry, under ``path``, and with ``target`` if it is a hard link."""
    member = tarfile.TarInfo(path)
    member.type = _TYPES[entry.kind]
    member.mode, member.mtime, member.uid, member.gid = entry.mode, entry.modified_s, uid, gid
    member.linkname = target or entry.target
    member.size = entry.size_bytes if entry.kind == "file" else 0
    # GNU, not PAX: its long names are plain bytes, in any encoding.
    yield member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    if entry.kind == "file":
        yield from entry.chunks
        yield bytes(-entry.size_bytes % tarfile.BLOCKSIZE)


END = bytes(2 * tarfile.BLOCKSIZE)
"""The end of a tar."""


def path_problem(path: str) -> str | None:
    """Return a phrase that says why a path is refused; ``None`` for a valid one. Linear in the path."""
    if len(path) > MAX_PATH_BYTES or len(_bytes(path)) > MAX_PATH_BYTES:
        return f"its path is longer than {MAX_PATH_BYTES} bytes"
    names = path.split("/")
    if len(names) > MAX_DEPTH:
        return f"its path is too deep: it has more than {MAX_DEPTH} names"
    if any(name in ("", ".", "..") for name in names):
        return "its path leads out"
    if any(len(_bytes(name)) > MAX_NAME_BYTES for name in names):
        return f"a name in its path is too long: it has more than {MAX_NAME_BYTES} bytes"
    if "\0" in path:
        return "its path contains NUL"
    return None


class Tree:
    """The paths of an archive so far: each once, and none below a file or a link.

    A path, and each directory above it, is stored as a digest, about 90 bytes whatever its length.
    """

    def __init__(self) -> None:
        self._kinds: dict[bytes, Kind] = {}
        # Without the key nobody can construct two paths with the same digest.
        self._key = secrets.token_bytes(16)

    def __len__(self) -> int:
        """Return the number of stored paths, including those of directories above others."""
        return len(self._kinds)

    def problem(self, path: str, kind: Kind) -> str | None:
        """Add a path, or return a phrase that says why it is refused; then nothing is added."""
        problem = path_problem(path)
        if problem is not None:
            return problem
        *above, own = self._digests(path)
        if any(self._kinds.get(digest, "directory") != "directory" for digest in above):
            return "a part of its path is a file or a link"
        earlier = self._kinds.get(own)
        if earlier is not None and (earlier, kind) != ("directory", "directory"):
            return "its path is there twice"
        for digest in above:
            self._kinds[digest] = "directory"
        self._kinds[own] = kind
        return None

    def has_file(self, path: str) -> bool:
        """Return whether a regular file was added under this path."""
        return path_problem(path) is None and self._kinds.get(self._digests(path)[-1]) == "file"

    def missing_above(self, path: str) -> list[str]:
        """Add the directories above a path, and return the new ones, the topmost first."""
        missing = []
        end = -1
        for digest in self._digests(path)[:-1]:
            end = path.index("/", end + 1)
            if digest not in self._kinds:
                self._kinds[digest] = "directory"
                missing.append(path[:end])
        return missing

    def _digests(self, path: str) -> list[bytes]:
        """Return a digest of each directory above a path, the topmost first, and of the path itself."""
        hashed = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=self._key)
        digests = []
        for name in path.split("/"):
            hashed.update(_bytes(name) + b"/")
            digests.append(hashed.digest())
        return digests


def _bytes(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        # It does not come from a tar.
        return text.encode(errors="surrogatepass")


_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}


def _kind(member: tarfile.TarInfo) -> Kind:
    if member.isdir():
        return "directory"
    if member.issym():
        return "symlink"
    if member.islnk():
        return "hardlink"
    return "file" if member.isreg() else "other"


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    stream: Any = archive.fileobj
    remaining_bytes = member.size if member.isreg() else 0
    while remaining_bytes:
        chunk = stream.read(min(remaining_bytes, CHUNK_BYTES))
        if not chunk:
            raise DamagedTar("unexpected end of data")
        remaining_bytes -= len(chunk)
        yield chunk


class _Archive(tarfile.TarFile):
    """An archive that counts the bytes of headers before the next member."""

    header_bytes = 0


class _Member(tarfile.TarInfo):
    """A header, read with bounds that the library does not have.

    The library's source says that subclasses may override ``_proc_member`` and the methods that it calls.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        """See ``TarInfo.fromtarfile``, for which a broken header is the end of the archive."""
        try:
            member: Any = super().fromtarfile(archive)
        except _EndOfArchive:
            raise
        except tarfile.HeaderError as exc:
            raise DamagedTar(str(exc)) from exc
        if member.size < 0 or member.type not in tarfile.SUPPORTED_TYPES or member.issparse():
            raise DamagedTar("it has a member of an unknown kind")
        return member  # type: ignore[no-any-return]  # an instance of this class, which the library creates

    def _proc_member(self, archive: _Archive) -> "_Member":
        # Before the library reads anything because of the header.
        if self.size < 0:
            raise DamagedTar("a header has an impossible size")
        if self.type in _EXTENDING:
            archive.header_bytes += tarfile.BLOCKSIZE + self.size
            if archive.header_bytes > _MAX_HEADER_BYTES:
                raise DamagedTar(f"the headers of a member take more than {_MAX_HEADER_BYTES >> 10} KiB")
        else:
            archive.header_bytes = 0
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise DamagedTar("it has a sparse file, as created by tar --sparse")
        member: _Member = super()._proc_member(archive)  # type: ignore[misc]  # missing in the stubs
        return member

    def _proc_pax(self, archive: Any) -> "_Member":
        # The library's own method may take hours for a malicious header, and keeps global ones.
        records = _pax_records(archive.fileobj.read(self._block(self.size))[: self.size])  # type: ignore[attr-defined]  # missing in the stubs
        try:
            member: Any = self.fromtarfile(archive)
        except _EndOfArchive as exc:
            raise DamagedTar("it ends after an extended header") from exc
        if self.type != tarfile.XGLTYPE:
            member.name = records.get("path", member.name).rstrip("/")
            member.linkname = records.get("linkpath", member.linkname)
            member.mtime = float(records.get("mtime", member.mtime))
            if "size" in records and member.isreg():
                member.size = int(records["size"])
                archive.offset = member.offset_data + member._block(member.size)
        return member  # type: ignore[no-any-return]  # as above


def _pax_records(data: bytes) -> dict[str, str]:
    """Return the records of an extended header: each has its length, a space, ``key=value`` and a newline."""
    records = {}
    position = 0
    while position < len(data):
        length, space, _ = data[position : position + 20].partition(b" ")
        end = position + (int(length) if length.isdigit() else 0)
        key, equals, value = data[position + len(length) + 1 : end].partition(b"=")
        if not (space and equals and value.endswith(b"\n")) or end > len(data):
            raise DamagedTar("an extended header is broken")
        if key.startswith(b"GNU.sparse"):
            raise DamagedTar("it has a sparse file, as created by tar --sparse")
        records[_text(key)] = _text(value[:-1])
        position = end
    return records


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


class _Reader:
    """Chunks of any size, with the ``read`` method that ``tarfile`` needs."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        pieces = [self._rest]
        have = len(self._rest)
        while have < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            pieces.append(chunk)
            have += len(chunk)
        data = b"".join(pieces)
        self._rest = data[size:]
        return data[:size]
