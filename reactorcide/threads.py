"""Starting threads."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from time import monotonic
from typing import Generic, TypeVar

from reactorcide.domain.errors import InfrastructureError

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Start and return a daemon thread; raises ``InfrastructureError`` if the system allows no more."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:
        raise InfrastructureError(
            "no thread can be started: the system allows no more, or no more memory (ulimit -u, ulimit -v)"
        ) from exc
    return thread


def call_in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Make a call that cannot be interrupted in a daemon thread, and return the future of its result.

    Whoever no longer waits for the result leaves the thread to end by itself. Raises as ``start_thread``.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as exc:
            future.set_exception(exc)

    start_thread(run, name)
    return future


class ThreadsByKey(Generic[Key]):
    """Threads that each work for a key: one per key at a time, with a maximum in total. Thread-safe.

    So slow work for one key does not delay others; retries, which may all wait for the same dead server, get
    at most half of the threads. ``ended`` is called after the end of each thread.
    """

    def __init__(self, max_threads: int, ended: Callable[[], object] = lambda: None) -> None:
        self._max_threads = max_threads
        self._ended = ended
        self._lock = threading.Lock()
        self._threads: dict[Key, threading.Thread] = {}
        self._retries: set[Key] = set()
        self._stopping = False

    @property
    def is_full(self) -> bool:
        """Whether the maximum number of threads is running."""
        with self._lock:
            return len(self._threads) >= self._max_threads

    def keys(self) -> list[Key]:
        """Return the keys that have a thread."""
        with self._lock:
            return list(self._threads)

    def start(self, key: Key, work: Callable[[], object], name: str, *, is_retry: bool = False) -> bool:
        """Start a thread for ``work``, and return whether it was started.

        It is not if its key has a thread, there are too many, or all are stopping. Raises as
        ``start_thread``.
        """

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    del self._threads[key]
                    self._retries.discard(key)
                self._ended()

        with self._lock:
            if self._stopping or key in self._threads or len(self._threads) >= self._max_threads:
                return False
            if is_retry and len(self._retries) >= self._max_threads // 2:
                return False
            # The thread can end only after it is registered, because its end takes the lock.
            self._threads[key] = start_thread(run, name)
            if is_retry:
                self._retries.add(key)
            return True

    def stop(self, deadline: float) -> None:
        """Start no more threads, and wait until all have ended, or until that time of ``monotonic``."""
        with self._lock:
            self._stopping = True
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
