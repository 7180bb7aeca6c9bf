"""Writing an attempt's log as its container prints it."""

from reactorcide.domain.jobs import log_key
from reactorcide.objects import ObjectStore
from reactorcide.signals import Signals


class LogWriter:
    """Adds to the log of one attempt and wakes its followers. One thread writes at a time.

    Raises ``ObjectStoreError`` where the log cannot be stored: a log with a hole is never an option.
    """

    def __init__(self, objects: ObjectStore, signals: Signals, job_id: str, attempt: int) -> None:
        self._signals = signals
        self._key = log_key(job_id, attempt)
        self._object = objects.append(self._key)
        self._ends_in_newline = True

    @property
    def size_bytes(self) -> int:
        """Bytes of the log so far."""
        return self._object.size_bytes

    def write(self, data: bytes) -> None:
        """Add what the container printed, byte for byte."""
        if data:
            self._object.write(data)
            self._ends_in_newline = data.endswith(b"\n")
            # Not the job: who waits for its status need not look at the database for every line.
            self._signals.announce(self._key)

    def say(self, sentence: str) -> None:
        """Add a line of the service's own, always on a line of its own."""
        start = b"" if self._ends_in_newline else b"\n"
        self.write(start + f"[reactorcide] {sentence}\n".encode())

    def cut_back(self, size_bytes: int) -> None:
        """Throw away all but the first ``size_bytes``, which ended a line, to write the rest anew."""
        self._object.cut_back(size_bytes)
        self._ends_in_newline = True

    def close(self) -> None:
        """Make the log durable; safe to repeat."""
        self._object.close()
