"""Where logs and artifacts are kept: objects under keys, behind one protocol."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

MOST_KEY_BYTES = 2048
MOST_PARTS = 128
"""Of a key: it may be a path that a job has made, and whoever walks directories goes no deeper."""
MOST_PART_BYTES = 255
"""Of one part of a key: what every file system takes."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object in a listing."""

    key: str
    size_bytes: int


class Appender(Protocol):
    """An object being written live. One thread writes; readers see each write at once."""

    size_bytes: int
    """Bytes of the object so far."""

    def write(self, data: bytes) -> None:
        """Add ``data`` to the end. Raises ``ObjectStoreError``."""

    def cut_back(self, size_bytes: int) -> None:
        """Throw away all but the first ``size_bytes``. Raises ``ObjectStoreError``."""

    def close(self) -> None:
        """Make everything durable and end the writing; safe to repeat. Raises ``ObjectStoreError``."""


class ObjectStore(Protocol):
    """Bytes under keys like ``jobs/<id>/1/log``: ``/``-separated, no empty, ``.`` or ``..`` part.

    A key is Unicode without NUL, of at most ``MOST_KEY_BYTES`` in UTF-8 and ``MOST_PARTS``, each of at most
    ``MOST_PART_BYTES``. Thread-safe. A key that is not of that form raises ``InvalidInput``; where the store
    does not do its work ``ObjectStoreError`` is raised.
    """

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """Store an object whole and durably, or not at all, and return its bytes; replaces an old one."""

    def append(self, key: str) -> Appender:
        """Open an object for adding to its end, creating it where there is none."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from offset ``start`` up to ``end`` (exclusive; ``None``: what is there now).

        Raises ``ObjectNotFound`` on the call itself, not on the first chunk.
        """

    def size(self, key: str) -> int:
        """Return an object's bytes so far; raises ``ObjectNotFound``."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose key begins with ``prefix`` (which ends in ``/``), in no order."""

    def delete(self, prefix: str) -> None:
        """Remove every object whose key begins with ``prefix`` (which ends in ``/``); safe to repeat."""

    def check(self) -> None:
        """Raise ``ObjectStoreError`` unless an object could be written now."""
