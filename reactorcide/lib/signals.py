"""Wake-ups by key, inside one process: who waits for a job learns at once that it changed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ANY_JOB = "any job"
"""Announced with every status change of every job."""


class Signals:
    """Lets threads wait for something to happen to a key, such as a job's id.

    A signal carries nothing: whoever is woken looks at the truth, which is in the database or a
    file. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers: dict[str, set[threading.Event]] = {}
        self._closed = False

    @contextmanager
    def watching(self, *keys: str) -> Iterator[threading.Event]:
        """Yield an event that is set whenever one of ``keys`` is announced; the watcher clears it.

        Look at the truth *after* entering (or clearing), so that nothing falls in between.
        """
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
        """Wake everybody who watches ``key``; costs next to nothing where nobody does."""
        if key not in self._watchers:
            return
        with self._lock:
            for event in self._watchers.get(key, ()):
                event.set()

    def close(self) -> None:
        """Wake everybody for good: the service stops. Safe to repeat."""
        with self._lock:
            self._closed = True
            for watchers in self._watchers.values():
                for event in watchers:
                    event.set()

    @property
    def closed(self) -> bool:
        """Tell whether the service stops, so that waiting makes no sense any more."""
        return self._closed
