"""The log of an attempt that a worker on another machine writes, piece by piece."""

from contextlib import ExitStack
from typing import NamedTuple

from reactorcide.domain.errors import LogConflict, ObjectStoreError, TooLarge
from reactorcide.domain.jobs import log_index_key, log_key
from reactorcide.lib.notifier import Notifier
from reactorcide.lib.sizes import format_size
from reactorcide.logs import LogFile, LogStore

MAX_PIECE_BYTES = 1 << 20
"""The most bytes of a log, and of its index, in one piece."""
_INDEX_FACTOR = 4
"""An index of the shortest runs takes more bytes than their text."""
_OVER_BYTES = 4 << 20
"""What a log may have above its limit, such as the note about the gap."""


class LogEnds(NamedTuple):
    """The bytes of a log and of its index."""

    log_bytes: int
    index_bytes: int


class PieceWriter:
    """Writes pieces to the log of one attempt and wakes its followers. For one thread at a time.

    A reader of a log sees as much of it as its index covers, so that the text is written before the index.
    """

    def __init__(
        self, logs: LogStore, notifier: Notifier, job_id: str, attempt: int, *, max_bytes: int
    ) -> None:
        self._logs = logs
        self._notifier = notifier
        self._keys = log_key(job_id, attempt), log_index_key(job_id, attempt)
        self._max_bytes = max_bytes + _OVER_BYTES, _INDEX_FACTOR * max_bytes + _OVER_BYTES
        with ExitStack() as opened:
            # The index first: a log without one was written by a version that had none.
            index = logs.append(self._keys[1])
            opened.callback(index.close)
            self._files: tuple[LogFile, LogFile] = logs.append(self._keys[0]), index
            opened.pop_all()

    @property
    def ends(self) -> LogEnds:
        """The bytes that are stored."""
        return LogEnds(self._files[0].size_bytes, self._files[1].size_bytes)

    def put(self, ends: LogEnds, text: bytes, index: bytes, *, replaces: bool) -> LogEnds:
        """See ``LeasedAttempts.put_log``."""
        for number, (begin, data) in enumerate(zip(ends, (text, index), strict=True)):
            if begin > self.ends[number]:
                raise self._conflict("a piece before this one is missing")
            if begin + len(data) > self._max_bytes[number]:
                raise TooLarge(f"the log is larger than {format_size(self._max_bytes[number])}")
        if replaces:
            for number in (1, 0):
                self._files[number].cut_back(ends[number])
        rests = [
            self._rest(number, begin, data)
            for number, (begin, data) in enumerate(zip(ends, (text, index), strict=True))
        ]
        for file, rest in zip(self._files, rests, strict=True):
            if rest:
                self._write(file, rest)
        if any(rests):
            self._notifier.announce(self._keys[0])
        return self.ends

    def check(self, ends: LogEnds) -> None:
        """Raise ``LogConflict`` unless exactly this much is stored."""
        if ends != self.ends:
            raise self._conflict("the log is not complete")

    def close(self) -> None:
        """Make the log durable and close it; safe to repeat."""
        try:
            self._files[0].close()
        finally:
            self._files[1].close()

    def _rest(self, number: int, begin: int, data: bytes) -> bytes:
        """Return the part of a piece that is not stored yet: it was sent before if the answer was lost."""
        repeated_bytes = min(self.ends[number] - begin, len(data))
        if self.ends[number] - begin > len(data):
            raise self._conflict("more than this piece is stored already")
        if repeated_bytes:
            stored = b"".join(self._logs.read(self._keys[number], begin, begin + repeated_bytes))
            if stored != data[:repeated_bytes]:
                raise self._conflict("another piece is stored at this place")
        return data[repeated_bytes:]

    def _write(self, file: LogFile, data: bytes) -> None:
        size_bytes = file.size_bytes
        try:
            file.write(data)
        except ObjectStoreError:
            # A part of a piece would look like a repetition, which it is: but a full disk needs its room.
            file.cut_back(size_bytes)
            raise

    def _conflict(self, problem: str) -> LogConflict:
        log_bytes, index_bytes = self.ends
        return LogConflict(
            f"{problem}: {log_bytes} bytes of the log and {index_bytes} of its index are stored",
            log_bytes,
            index_bytes,
        )
