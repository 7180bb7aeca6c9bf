"""Writing an attempt's log as its container prints it."""

from collections.abc import Collection

from reactorcide.domain.jobs import log_key
from reactorcide.logs.masking import Masker, masked
from reactorcide.objects import ObjectStore
from reactorcide.signals import Signals


class LogWriter:
    """Adds to the log of one attempt, but no secrets, and wakes its followers. One thread writes at a time.

    Raises ``ObjectStoreError`` where the log cannot be stored: a log with a hole is never an option.
    """

    def __init__(
        self,
        objects: ObjectStore,
        signals: Signals,
        job_id: str,
        attempt: int,
        secrets: Collection[str] = (),
    ) -> None:
        self._signals = signals
        self._secrets = secrets
        self._masker = Masker(secrets)
        self._key = log_key(job_id, attempt)
        self._object = objects.append(self._key)
        self._ends_in_newline = True

    @property
    def size_bytes(self) -> int:
        """Bytes of the log so far."""
        return self._object.size_bytes

    def write(self, data: bytes) -> None:
        """Add what the container printed, byte for byte but for secrets.

        What may be the beginning of one waits for what comes next.
        """
        for _, text in self._masker.feed(data):
            self._add(text)

    def flush(self) -> None:
        """Add what waits: the stream that it belongs to has ended."""
        for _, text in self._masker.end():
            self._add(text)

    def say(self, sentence: str) -> None:
        """Add a line of the service's own, always on a line of its own."""
        self.flush()
        start = b"" if self._ends_in_newline else b"\n"
        self._add(start + f"[reactorcide] {masked(sentence, self._secrets)}\n".encode())

    def cut_back(self, size_bytes: int) -> None:
        """Throw away all but the first ``size_bytes``, which ended a line, to write the rest anew."""
        self._masker.end()
        self._object.cut_back(size_bytes)
        self._ends_in_newline = True

    def close(self) -> None:
        """Make the log durable; safe to repeat. What waits may be half of a secret, so it is not added."""
        self._object.close()

    def _add(self, data: bytes) -> None:
        self._object.write(data)
        self._ends_in_newline = data.endswith(b"\n")
        # Not the job: who waits for its status need not look at the database for every line.
        self._signals.announce(self._key)
