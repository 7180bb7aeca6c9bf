"""Hints by key that something has changed, so that waiting threads notice it at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

ANY_JOB = "any job"
"""Announced with every status change of every job."""
OUTBOX = "outbox"
"""Announced when something is owed to others."""
LOOK_EVERY_S = 1.0
"""How long to wait for a hint before checking the state without one."""


class Notifier(Protocol):
    """Lets threads wait for something to happen to a key, such as a job's id.

    A hint has no content and may be lost: the state is in the database and the logs. A waiting thread checks
    it after each hint, and every ``LOOK_EVERY_S`` without one. Thread-safe.
    """

    def watching(self, *keys: str) -> AbstractContextManager[threading.Event]:
        """Yield an event that is set whenever one of ``keys`` is announced; the caller clears it.

        Check the state *after* entering (or clearing), so that no change is missed.
        """

    def announce(self, key: str) -> None:
        """Set the events of all watchers of ``key``; costs almost nothing if there are none."""

    def close(self) -> None:
        """Set all events for ever, because the service stops. Safe to repeat."""

    @property
    def closed(self) -> bool:
        """Whether the service stops, so that no thread should wait any longer."""


class LocalNotifier:
    """A ``Notifier`` inside one process, which may also tell others.

    ``forward`` gets each key that is announced here, from any thread; it must not wait.
    """

    def __init__(self, forward: Callable[[str], object] | None = None) -> None:
        self._forward = forward
        self._lock = threading.Lock()
        self._watchers: dict[str, set[threading.Event]] = {}
        self._closed = False

    @contextmanager
    def watching(self, *keys: str) -> Iterator[threading.Event]:
        """See ``Notifier.watching``."""
        event = threading.Event()
        with self._lock:
            if self._closed:
                event.set()
            for key in keys:
                self._watchers.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            with self._lock:
                for key in keys:
                    watchers = self._watchers[key]
                    watchers.discard(event)
                    if not watchers:
                        del self._watchers[key]

    def announce(self, key: str) -> None:
        """See ``Notifier.announce``."""
        if self._forward is not None:
            self._forward(key)
        self.hear(key)

    def hear(self, key: str) -> None:
        """Set the events of all watchers of ``key`` in this process, and tell nobody else."""
        if key not in self._watchers:
            return
        with self._lock:
            for event in self._watchers.get(key, ()):
                event.set()

    def close(self) -> None:
        """See ``Notifier.close``."""
        with self._lock:
            self._closed = True
            for watchers in self._watchers.values():
                for event in watchers:
                    event.set()

    @property
    def closed(self) -> bool:
        """See ``Notifier.closed``."""
        return self._closed
