"""Interrupting a running attempt from another thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

from reactorcide.domain.errors import JobInterrupted

CANCELLED = "cancelled"


class Reason(Enum):
    """Why an attempt must end before its command did."""

    CANCELLED = auto()
    """Somebody cancelled the job, or this worker may run it no longer."""
    STOPPING = auto()
    """The service stops; a container that runs is left to the next start."""


class Interrupt:
    """Set once, at any time; it ends the attempt's current wait. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: Reason | None = None
        self.why = CANCELLED
        """The end of the attempt in a phrase, unless the service stops."""
        self._calls: list[Callable[[], object]] = []
        self._changed = threading.Condition(self._lock)

    @property
    def reason(self) -> Reason | None:
        """Why the attempt must end; ``None`` if it need not."""
        return self._reason

    def set(self, reason: Reason, why: str = CANCELLED) -> None:
        """Interrupt the attempt. A cancel outranks the service's stop; repeating is harmless."""
        with self._lock:
            if reason is Reason.CANCELLED and self._reason is not Reason.CANCELLED:
                self.why = why
            if self._reason is None or reason is Reason.CANCELLED:
                self._reason = reason
            self._changed.notify_all()
            # Under the lock, so that nothing is called after the end of ``calling``.
            for call in self._calls:
                call()

    def pause(self, timeout_s: float) -> None:
        """Wait for a time, or until the interrupt is set meanwhile; not at all if the service stops.

        Another interrupt may be set already: a cancelled attempt still waits for its clean-up.
        """
        with self._changed:
            if self._reason is not Reason.STOPPING:
                self._changed.wait(timeout_s)

    def check(self) -> None:
        """Raise ``JobInterrupted`` if the attempt must end."""
        if self._reason is not None:
            raise JobInterrupted(self._reason.name.lower())

    @contextmanager
    def calling(self, call: Callable[[], object]) -> Iterator[None]:
        """Call ``call`` from another thread when the interrupt is set; at once if it is set already.

        It must neither block nor raise.
        """
        with self._lock:
            self._calls.append(call)
            if self._reason is not None:
                call()
        try:
            yield
        finally:
            with self._lock:
                self._calls.remove(call)
