"""Hints to the workers of this process: there is a job to run, a job is cancelled.

A lost hint costs only time, because workers also poll.
"""

from collections.abc import Callable


class WorkerHints:
    """Passes hints to its subscribers. Thread-safe; costs nothing without subscribers."""

    def __init__(self) -> None:
        self._subscribers: tuple[tuple[Callable[[], None], Callable[[str], None]], ...] = ()

    def subscribe(self, waiting: Callable[[], None], cancelled: Callable[[str], None]) -> None:
        """Subscribe: ``waiting`` is called if a job may wait, ``cancelled`` with a job's id; by any
        thread."""
        self._subscribers = (*self._subscribers, (waiting, cancelled))

    def job_waiting(self) -> None:
        """Hint that there may be a job to claim."""
        for waiting, _ in self._subscribers:
            waiting()

    def job_cancelled(self, job_id: str) -> None:
        """Hint that a job that may be running is cancelled."""
        for _, cancelled in self._subscribers:
            cancelled(job_id)
