"""Hints to the workers of this process: there is a job to run, a job is cancelled.

A hint that is lost costs time alone, for a worker looks by itself now and then.
"""

from collections.abc import Callable


class WorkerHints:
    """Passes hints on to whoever has subscribed. Thread-safe; costs nothing where nobody has."""

    def __init__(self) -> None:
        self._subscribers: tuple[tuple[Callable[[], None], Callable[[str], None]], ...] = ()

    def subscribe(self, waiting: Callable[[], None], cancelled: Callable[[str], None]) -> None:
        """Have ``waiting`` called where a job may wait, and ``cancelled`` with a job's id; by any thread."""
        self._subscribers = (*self._subscribers, (waiting, cancelled))

    def job_waiting(self) -> None:
        """Hint that there may be a job to claim."""
        for waiting, _ in self._subscribers:
            waiting()

    def job_cancelled(self, job_id: str) -> None:
        """Hint that a job that may be running is cancelled."""
        for _, cancelled in self._subscribers:
            cancelled(job_id)
