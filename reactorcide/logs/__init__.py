"""Logs of attempts: growing while the attempt runs, an object once it has ended."""

from collections.abc import Iterator
from typing import Protocol

from reactorcide.objects import StoredObject


class LogFile(Protocol):
    """One file of a log, open for writing. One thread writes; readers see each write at once."""

    size_bytes: int
    """Bytes of the file so far."""

    def write(self, data: bytes) -> None:
        """Add ``data`` to the end. Raises ``ObjectStoreError``."""

    def cut_back(self, size_bytes: int) -> None:
        """Remove all but the first ``size_bytes``. Raises ``ObjectStoreError``."""

    def close(self) -> None:
        """Make everything durable and close the file; safe to repeat. Raises ``ObjectStoreError``."""


class LogStore(Protocol):
    """The files of logs, under the keys ``domain.jobs.log_key`` and ``log_index_key``.

    A file grows until it is sealed, and then is an object under the same key. It can be read at any time:
    before, during and after sealing, even if the service was killed in between. Thread-safe; one thread
    writes to a log, and one seals it after that. Raises ``ObjectStoreError``, and ``InvalidInput`` for any
    other key.
    """

    def append(self, key: str) -> LogFile:
        """Open a file to append to it; a missing file is created, a sealed one reopened."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a file; see ``ObjectStore.read``."""

    def size(self, key: str) -> int:
        """Return a file's bytes so far; raises ``ObjectNotFound``."""

    def seal(self, prefix: str) -> None:
        """Turn the files below ``prefix`` (which ends in ``/``) into objects; safe to repeat.

        All of them must be closed. After an error they are unchanged and readable.
        """

    def unsealed(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the files below ``prefix`` that are not sealed."""

    def delete(self, prefix: str) -> None:
        """Remove the files below ``prefix`` that are not sealed; safe to repeat."""
