"""Watching the disk usage of the running jobs."""

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from reactorcide.domain.errors import InfrastructureError
from reactorcide.threads import start_thread
from reactorcide.worker.attempt import Attempt

log = logging.getLogger("reactorcide.worker")

_EVERY_S = 3.0
_MAX_PAUSE_S = 30.0
_REST = 10
"""The pause after a measurement is ten times its duration, because the engine walks through all files."""


class DiskWatch:
    """One thread that measures the running attempts, one after the other, every few seconds.

    A quota would be exact, but Docker has quotas on few file systems only. ``start`` once; ``stop`` any
    number of times.
    """

    def __init__(self, attempts: Callable[[], Sequence[Attempt]]) -> None:
        self._attempts = attempts
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start watching."""
        self._thread = start_thread(self._loop, "disk-watch")

    def stop(self, deadline_s: float) -> None:
        """Stop watching; returns when the thread has ended, or after ``deadline_s``."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(deadline_s)

    def _loop(self) -> None:
        pause_s = _EVERY_S
        while not self._stopping.wait(pause_s):
            began = monotonic()
            for attempt in self._attempts():
                self._measure(attempt)
            pause_s = min(max(_EVERY_S, _REST * (monotonic() - began)), _MAX_PAUSE_S)

    def _measure(self, attempt: Attempt) -> None:
        if self._stopping.is_set():
            return
        extra = {"job_id": attempt.job.job_id}
        try:
            attempt.check_disk()
        except InfrastructureError as exc:
            log.warning("its disk usage is unknown: %s", exc, extra=extra)
        except Exception:
            log.exception("its disk usage could not be checked", extra=extra)
