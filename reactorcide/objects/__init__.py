"""Where finished logs, artifacts and sources are kept: objects under keys, behind one protocol."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reactorcide.domain.errors import InvalidInput

MOST_KEY_BYTES = 2048
MOST_PARTS = 128
"""Of a key: it may be a path that a job has made, and whoever walks directories goes no deeper."""
MOST_PART_BYTES = 255
"""Of one part of a key: what every file system takes."""
RESERVED = ".tmp"
"""No key begins with this part."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object in a listing."""

    key: str
    size_bytes: int


class ObjectStore(Protocol):
    """Bytes under keys like ``jobs/<id>/1/log``: ``/``-separated, no empty, ``.`` or ``..`` part.

    An object is stored whole and never changes in place, so that an S3 bucket can be one of these.

    A key is Unicode without NUL, of at most ``MOST_KEY_BYTES`` in UTF-8 and ``MOST_PARTS``, each of at most
    ``MOST_PART_BYTES``. Thread-safe. A key that is not of that form raises ``InvalidInput``; where the store
    does not do its work ``ObjectStoreError`` is raised.
    """

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """Store an object whole and durably, or not at all, and return its bytes; replaces an old one."""

    def put_file(self, key: str, path: Path) -> None:
        """Store a local file whole and durably, and remove it; replaces an old object.

        Its bytes are on disk already. Where it fails the file stays.
        """

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from offset ``start`` up to ``end`` (exclusive; ``None``: to its end).

        Raises ``ObjectNotFound`` on the call itself, not on the first chunk.
        """

    def size(self, key: str) -> int:
        """Return the bytes of an object; raises ``ObjectNotFound``."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose key begins with ``prefix`` (which ends in ``/``), in no order."""

    def used_bytes(self, prefix: str) -> int:
        """Return about what the objects whose key begins with ``prefix`` take (which ends in ``/``)."""

    def delete(self, prefix: str) -> None:
        """Remove every object whose key begins with ``prefix`` (which ends in ``/``); safe to repeat."""

    def check(self) -> None:
        """Raise ``ObjectStoreError`` unless an object could be written now."""


def key_parts(key: str) -> list[str]:
    """Return the parts of a key; raises ``InvalidInput`` for what is not one."""
    parts = key.split("/")
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        longest = MOST_KEY_BYTES
    if "\0" in key or parts[0] == RESERVED or any(part in ("", ".", "..") for part in parts):
        raise InvalidInput(f"{key!r} is not an object key")
    if longest > MOST_PART_BYTES or len(parts) > MOST_PARTS or len(key.encode()) > MOST_KEY_BYTES:
        raise InvalidInput(f"{key[:100]!r}… is not an object key: it is too long or too deep, or not Unicode")
    return parts
