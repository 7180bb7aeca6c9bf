"""Sending the log of an attempt from the worker's disk to the service, while it grows."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from reactorcide.domain.errors import AttemptStale, InfrastructureError, LogConflict, LogLost, TooLarge
from reactorcide.domain.jobs import attempt_prefix, log_index_key, log_key
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.threads import start_thread
from reactorcide.worker.remote.identity import WorkerFiles
from reactorcide.worker.remote.spool import Spool

log = logging.getLogger("reactorcide.worker")

_MAX_PIECE_BYTES = 1 << 20
_LOOK_EVERY_S = 1.0
_PAUSE_S = 0.05
"""Between two rounds, so that a busy log goes in few requests; its end does not wait for that."""
_MAX_CONFLICTS = 10
"""In a row. Each goes on with what the service has."""

Put = Callable[[str, bytes], Any]
"""Sends a body to a path of the attempt, and returns the JSON of the answer."""


class Shipper(LocalNotifier):
    """Sends one attempt's log, in order, each byte of it once. ``close`` is idempotent.

    It is the notifier of the ``LogWriter``, which so tells it of what is new. A piece whose answer was
    lost is sent again, and the service recognizes it. What an earlier process has sent is
    compared by its length.
    """

    def __init__(self, files: WorkerFiles, job_id: str, attempt: int, put: Put) -> None:
        super().__init__()
        self._key = job_id, attempt
        self._put = put
        self._lock = threading.Lock()
        self._is_new = threading.Event()
        self._is_over = threading.Event()
        self._sent = (0, 0)
        self._replaces = False
        self.is_full = False
        """Whether the rest is left out: it is lost, or the service has a lower limit since a restart."""
        self.spool = Spool(files.logs_dir, self._cutting, files.failed)

    def begin(self) -> None:
        """Start sending, once the log is open; an earlier process may have sent what it has by now."""
        self._sent = self.spool.sizes(*self._key)
        # Then what the service has beyond it, which was never indexed here, is replaced.
        self._replaces = self._sent != (0, 0)
        start_thread(self._loop, f"log-{self._key[0]}")

    def announce(self, key: str) -> None:
        """Have the thread look for what is new."""
        self._is_new.set()

    def flush(self) -> tuple[int, int]:
        """Send everything, and return the bytes of the log and of its index; raises as ``Transport``."""
        with self._lock:
            self._ship()
            return self._sent

    def resend(self, conflict: LogConflict) -> None:
        """Go on at what the service has, which has lost something that was sent."""
        with self._lock:
            if self.is_full:
                self._sent = conflict.log_bytes, conflict.index_bytes
            else:
                self._go_back(conflict)

    def close(self) -> None:
        """Send no more."""
        self._is_over.set()
        self._is_new.set()

    def release(self) -> None:
        """Send no more, and let go of the files, which stay. Safe to repeat."""
        self.close()
        with self._lock:
            self.spool.close()

    def remove(self) -> None:
        """Send no more, and remove the log from this disk. Safe to repeat."""
        self.release()
        self.spool.delete(attempt_prefix(*self._key))

    def _loop(self) -> None:
        problem = ""
        while not self._is_over.wait(_PAUSE_S):
            self._is_new.wait(_LOOK_EVERY_S)
            self._is_new.clear()
            try:
                with self._lock:
                    if not self._is_over.is_set():
                        self._ship()
                problem = ""
            except AttemptStale:
                # Who renews the lease notices it as well, and ends the container.
                return
            except InfrastructureError as exc:
                if str(exc) != problem:
                    problem = str(exc)
                    log.warning("its log is sent later: %s", exc, extra={"job_id": self._key[0]})
            except Exception:
                log.exception("its log could not be sent", extra={"job_id": self._key[0]})

    def _ship(self) -> None:
        """Send what is not sent yet, as far as it is still there. The lock is held."""
        try:
            self._ship_pieces()
        except (LogLost, TooLarge) as exc:
            self.is_full = True
            log.warning("the rest of its log is left out: %s", exc, extra={"job_id": self._key[0]})

    def _ship_pieces(self) -> None:
        conflicts = 0
        # What comes meanwhile is for the next round.
        log_bytes, index_bytes = self.spool.sizes(*self._key)
        while not self.is_full and (
            self._sent[0] < log_bytes or self._sent[1] < index_bytes or self._replaces
        ):
            text = self.spool.piece(log_key(*self._key), self._sent[0], _MAX_PIECE_BYTES)
            index = b""
            # A reader sees what the index covers, so that it follows the text.
            if self._sent[0] + len(text) >= log_bytes:
                size = min(_MAX_PIECE_BYTES, index_bytes - self._sent[1])
                index = self.spool.piece(log_index_key(*self._key), self._sent[1], size)
            query = f"offset={self._sent[0]}&index_offset={self._sent[1]}&index_bytes={len(index)}"
            if self._replaces:
                query += "&replace=true"
            try:
                ends = self._put(f"log?{query}", text + index)
                self._sent = int(ends["log_bytes"]), int(ends["index_bytes"])
                self._replaces = False
                conflicts = 0
            except LogConflict as exc:
                conflicts += 1
                if conflicts > _MAX_CONFLICTS:
                    raise InfrastructureError(f"the log does not fit what the service has: {exc}") from exc
                self._go_back(exc)

    def _go_back(self, conflict: LogConflict) -> None:
        self._sent = min(self._sent[0], conflict.log_bytes), min(self._sent[1], conflict.index_bytes)
        self._replaces = True

    @contextmanager
    def _cutting(self, key: str, size_bytes: int) -> Iterator[None]:
        with self._lock:
            sent = list(self._sent)
            number = 0 if key == log_key(*self._key) else 1
            if size_bytes < sent[number]:
                sent[number] = size_bytes
                self._sent = sent[0], sent[1]
                self._replaces = True
            yield
