"""Storage of finished logs, artifacts and sources: objects under keys, behind one protocol."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.records import record

MAX_KEY_BYTES = 2048
MAX_PARTS = 128
"""Parts of a key: it may be a path created by a job, and walks through directories go no deeper."""
MAX_PART_BYTES = 255
"""Bytes of one part of a key, which every file system accepts."""
MAX_READS_AT_ONCE = 32
"""Requests that read from a bucket at once: if that hangs, these many threads wait for it."""
RESERVED = ".tmp"
"""The one first part that no key may have."""


@record
class StoredObject:
    """One object in a listing."""

    key: str
    size_bytes: int


class ObjectStore(Protocol):
    """Bytes under keys like ``jobs/<id>/1/log``: parts separated by ``/``, none empty, ``.`` or ``..``.

    An object is stored whole and never changes in place, so that an S3 bucket can be an object store.

    A key is Unicode without NUL, of at most ``MAX_KEY_BYTES`` in UTF-8 and ``MAX_PARTS``, each of at most
    ``MAX_PART_BYTES``. Thread-safe. Raises ``InvalidInput`` for any other key, and ``ObjectStoreError`` if
    the storage fails.
    """

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """Store an object whole and durably, or not at all, and return its size; replaces an old one."""

    def tag(self, key: str) -> str | None:
        """Return what tells an object from the others under the same key; ``None`` if there is none."""

    def replace(self, key: str, chunks: Iterable[bytes], tag: str | None) -> int:
        """Do the same as ``put``, but only where ``tag(key)`` is ``tag``.

        Raises ``ObjectChanged`` for another object; also where this call itself has stored it, and the answer
        was lost.
        """

    def put_file(self, key: str, path: Path) -> None:
        """Store a local file whole and durably, and remove it; replaces an old object.

        The file's bytes must be on disk already. After an error the file is unchanged.
        """

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from offset ``start`` up to ``end`` (exclusive; ``None``: to its end).

        Raises ``ObjectNotFound`` on the call itself, not on the first chunk.
        """

    def size(self, key: str) -> int:
        """Return the size of an object in bytes; raises ``ObjectNotFound``."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose key begins with ``prefix`` (which ends in ``/``), in no order."""

    def used_bytes(self, prefix: str) -> int:
        """Return about how many bytes the objects below ``prefix`` (which ends in ``/``) take."""

    def delete(self, prefix: str) -> None:
        """Remove every object whose key begins with ``prefix`` (which ends in ``/``); safe to repeat."""

    def check(self) -> None:
        """Raise ``ObjectStoreError`` unless an object could be written now."""

    def remove_leftovers(self, min_age_s: float = 0) -> None:
        """Remove incomplete objects at least so old: by default all, which ends ``put`` calls under way."""


def key_parts(key: str) -> list[str]:
    """Return the parts of a key; raises ``InvalidInput`` if it is not a valid one."""
    parts = key.split("/")
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        longest = MAX_KEY_BYTES
    if "\0" in key or parts[0] == RESERVED or any(part in ("", ".", "..") for part in parts):
        raise InvalidInput(f"{key!r} is not an object key")
    if longest > MAX_PART_BYTES or len(parts) > MAX_PARTS or len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidInput(f"{key[:100]!r}… is not an object key: it is too long or too deep, or not Unicode")
    return parts
