"""Tar archives that somebody else has made, read and written as streams: nothing in them is trusted.

Nothing is ever unpacked on this host, and memory grows neither with a file nor with the archive.
"""

import hashlib
import secrets
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

CHUNK_BYTES = 1 << 18
MOST_PATH_BYTES = 1024
"""Of a path in an archive, and of where a link leads. It fits in a URL, in an object's key, and below any
directory that it is unpacked in."""
MOST_NAME_BYTES = 255
"""Of each name in a path: what every file system takes."""
MOST_DEPTH = 120
"""Names in a path."""
_MOST_HEADER_BYTES = 1 << 16
"""What the headers that precede a member may take together, such as its long name."""
_DIGEST_BYTES = 8
"""Of 500,000 paths two have the same one once in 100 million archives, which are then refused."""
_LATEST_S = 8**11 - 1
"""The last second that every tar can say."""

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
    """What was read is no tar, or not all of one. Never leaves the callers of this module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of an archive."""

    path: str
    """As it stands in the archive, which may be anything; bytes that are not UTF-8 are surrogates."""
    kind: Kind
    mode: int = 0o644
    modified_s: int = 0
    size_bytes: int = 0
    target: str = ""
    """Where a link leads, as it stands in the archive."""
    chunks: Iterable[bytes] = ()
    """What a file holds; to be read before the next member is asked for, or not at all."""


def read_tar(chunks: Iterator[bytes]) -> Iterator[Entry]:
    """Yield the members of an uncompressed tar. Raises ``DamagedTar``, and what ``chunks`` raises."""
    stream: Any = _Reader(chunks)  # has the one method that is used
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
                # It would remember every one.
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
                # What was not read is read here: to get past it, the library would go on after the end, too.
                for _ in content:
                    pass
    except (tarfile.TarError, EOFError, RecursionError, ValueError, OverflowError) as exc:
        raise DamagedTar(" ".join(str(exc).split())) from exc


def gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what gzip has packed, in pieces of at most ``CHUNK_BYTES``; raises ``DamagedTar``."""
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
    """Yield an entry under another path, and a hard link under another target, as a piece of a tar."""
    member = tarfile.TarInfo(path)
    member.type = _TYPES[entry.kind]
    member.mode, member.mtime, member.uid, member.gid = entry.mode, entry.modified_s, uid, gid
    member.linkname = target or entry.target
    member.size = entry.size_bytes if entry.kind == "file" else 0
    # GNU, not PAX: its long names are bytes as they are, whatever their encoding.
    yield member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    if entry.kind == "file":
        yield from entry.chunks
        yield bytes(-entry.size_bytes % tarfile.BLOCKSIZE)


END = bytes(2 * tarfile.BLOCKSIZE)
"""What stands at the end of a tar."""


def path_problem(path: str) -> str | None:
    """Return in a phrase why a path in an archive is refused; ``None`` for a good one. Linear in the path."""
    if len(path) > MOST_PATH_BYTES or len(_bytes(path)) > MOST_PATH_BYTES:
        return f"its path is longer than {MOST_PATH_BYTES} bytes"
    names = path.split("/")
    if len(names) > MOST_DEPTH:
        return f"its path is too deep: it has more than {MOST_DEPTH} names"
    if any(name in ("", ".", "..") for name in names):
        return "its path leads out"
    if any(len(_bytes(name)) > MOST_NAME_BYTES for name in names):
        return f"a name in its path is too long: it has more than {MOST_NAME_BYTES} bytes"
    if "\0" in path:
        return "its path contains NUL"
    return None


class Tree:
    """The paths met in an archive: each once, and nothing below what is no directory.

    What is kept of a path, and of each directory above it, is a digest: about 90 bytes, however long it is.
    """

    def __init__(self) -> None:
        self._kinds: dict[bytes, Kind] = {}
        # Nobody who does not know it can make two paths with one digest.
        self._key = secrets.token_bytes(16)

    def __len__(self) -> int:
        """Return how many paths are remembered, those of directories above others included."""
        return len(self._kinds)

    def problem(self, path: str, kind: Kind) -> str | None:
        """Take a path in, or tell in a phrase why it is refused; then nothing has changed."""
        problem = path_problem(path)
        if problem is not None:
            return problem
        *above, own = self._digests(path)
        if any(self._kinds.get(digest, "directory") != "directory" for digest in above):
            return "what it lies in is no directory"
        known = self._kinds.get(own)
        if known is not None and (known, kind) != ("directory", "directory"):
            return "its path is there twice"
        for digest in above:
            self._kinds[digest] = "directory"
        self._kinds[own] = kind
        return None

    def has_file(self, path: str) -> bool:
        """Tell whether a regular file was taken in under this path."""
        return path_problem(path) is None and self._kinds.get(self._digests(path)[-1]) == "file"

    def missing_above(self, path: str) -> list[str]:
        """Take in the directories above a path, and return those that were not known, the topmost first."""
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
        found = []
        for name in path.split("/"):
            hashed.update(_bytes(name) + b"/")
            found.append(hashed.digest())
        return found


def _bytes(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        # It is no path of a tar.
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
    left_bytes = member.size if member.isreg() else 0
    while left_bytes:
        chunk = stream.read(min(left_bytes, CHUNK_BYTES))
        if not chunk:
            raise DamagedTar("unexpected end of data")
        left_bytes -= len(chunk)
        yield chunk


class _Archive(tarfile.TarFile):
    """An archive that knows what the headers before the next member have taken."""

    header_bytes = 0


class _Member(tarfile.TarInfo):
    """A header, read with bounds that the library does not have.

    It is made to be extended like this: its source says so of ``_proc_member`` and what that calls.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        """See ``TarInfo.fromtarfile``, after which a broken header is taken for the end of the archive."""
        try:
            member: Any = super().fromtarfile(archive)
        except _EndOfArchive:
            raise
        except tarfile.HeaderError as exc:
            raise DamagedTar(str(exc)) from exc
        if member.size < 0 or member.type not in tarfile.SUPPORTED_TYPES or member.issparse():
            raise DamagedTar("it has a member of an unknown kind")
        return member  # type: ignore[no-any-return]  # one of this class, as the library makes it

    def _proc_member(self, archive: _Archive) -> "_Member":
        # Before anything is read for the sake of the header.
        if self.size < 0:
            raise DamagedTar("a header has an impossible size")
        if self.type in _EXTENDING:
            archive.header_bytes += tarfile.BLOCKSIZE + self.size
            if archive.header_bytes > _MOST_HEADER_BYTES:
                raise DamagedTar(f"the headers of a member take more than {_MOST_HEADER_BYTES >> 10} KiB")
        else:
            archive.header_bytes = 0
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise DamagedTar("it has a sparse file, as tar makes them with --sparse")
        member: _Member = super()._proc_member(archive)  # type: ignore[misc]  # missing in the stubs
        return member

    def _proc_pax(self, archive: Any) -> "_Member":
        # The library's own may take hours over a header that was made for it, and keeps what is global.
        records = _pax_records(archive.fileobj.read(self._block(self.size))[: self.size])  # type: ignore[attr-defined]  # missing in the stubs
        try:
            member: Any = self.fromtarfile(archive)
        except _EndOfArchive as exc:
            raise DamagedTar("nothing comes after a header") from exc
        if self.type != tarfile.XGLTYPE:
            member.name = records.get("path", member.name).rstrip("/")
            member.linkname = records.get("linkpath", member.linkname)
            member.mtime = float(records.get("mtime", member.mtime))
            if "size" in records and member.isreg():
                member.size = int(records["size"])
                archive.offset = member.offset_data + member._block(member.size)
        return member  # type: ignore[no-any-return]  # as above


def _pax_records(data: bytes) -> dict[str, str]:
    """Return the records of an extended header: each is its length, a space, ``key=value`` and a newline."""
    records = {}
    position = 0
    while position < len(data):
        length, space, _ = data[position : position + 20].partition(b" ")
        end = position + (int(length) if length.isdigit() else 0)
        key, equals, value = data[position + len(length) + 1 : end].partition(b"=")
        if not (space and equals and value.endswith(b"\n")) or end > len(data):
            raise DamagedTar("an extended header is broken")
        if key.startswith(b"GNU.sparse"):
            raise DamagedTar("it has a sparse file, as tar makes them with --sparse")
        records[_text(key)] = _text(value[:-1])
        position = end
    return records


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


class _Reader:
    """Chunks of any size as the ``read`` that ``tarfile`` wants."""

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
