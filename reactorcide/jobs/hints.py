"""Hints to workers: there is a job to run, a job is cancelled.

A lost hint costs only time, because workers also poll.
"""

from collections.abc import Callable

_WAITING = "waiting"
_CANCELLED = "cancelled "


class WorkerHints:
    """Passes hints to its subscribers in this process. Thread-safe; costs nothing without subscribers.

    ``forward`` gets each of them as a text for ``hear`` of another service.
    """

    def __init__(self, forward: Callable[[str], object] | None = None) -> None:
        self._forward = forward
        self._subscribers: tuple[tuple[Callable[[], None], Callable[[str], None]], ...] = ()

    def subscribe(self, waiting: Callable[[], None], cancelled: Callable[[str], None]) -> None:
        """Subscribe: ``waiting`` is called if a job may wait, ``cancelled`` with a job's id; by any
        thread."""
        self._subscribers = (*self._subscribers, (waiting, cancelled))

    def job_waiting(self) -> None:
        """Hint that there may be a job to claim."""
        self._tell(_WAITING)

    def job_cancelled(self, job_id: str) -> None:
        """Hint that a job that may be running is cancelled."""
        self._tell(_CANCELLED + job_id)

    def _tell(self, hint: str) -> None:
        if self._forward is not None:
            self._forward(hint)
        self.hear(hint)

    def hear(self, hint: str) -> bool:
        """Pass on a hint, and tell no other service; returns whether it is one."""
        if hint == _WAITING:
            for waiting, _ in self._subscribers:
                waiting()
            return True
        if hint.startswith(_CANCELLED):
            for _, cancelled in self._subscribers:
                cancelled(hint.removeprefix(_CANCELLED))
            return True
        return False
