"""Hostile tars."""

import gzip
import io
import tarfile
from collections.abc import Iterable


def member(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "", **fields: int
) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an uncompressed tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, errors="surrogateescape") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def tar_gz(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return a tar.gz; the same members give the same bytes."""
    return gzip.compress(tar(*members), mtime=0)


def header(name: str, *, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    """Return a header alone, whatever size it claims."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def read_all(data: bytes) -> dict[str, tarfile.TarInfo]:
    """Return the members of a tar by name, as the standard library reads them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {info.name: info for info in archive}


def chunked(data: bytes, size: int) -> Iterable[bytes]:
    """Cut ``data`` into pieces."""
    return (data[start : start + size] for start in range(0, len(data), size))
