"""Starting threads."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from reactorcide.domain.errors import Busy, InfrastructureError, JobFailed
from reactorcide.lib.records import record

T = TypeVar("T")


_START_S = 20.0
"""The most for a thread to begin."""


class _Started(threading.Event):
    """What ``Thread.start`` waits for: for ever, if the thread dies for lack of memory before it begins."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait; raises ``RuntimeError``, as for a thread that the system refuses, if nothing begins."""
        if not super().wait(_START_S if timeout is None else timeout):
            raise RuntimeError("the thread does not begin")
        return True


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Start and return a daemon thread; raises ``InfrastructureError`` if the system allows no more."""
    # Taken by the thread when it begins, or by its starter when that gives it up.
    decided = threading.Lock()

    def run() -> None:
        if decided.acquire(blocking=False):
            target()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread._started = _Started()  # type: ignore[attr-defined]  # there is no other way to bound the wait
    try:
        thread.start()
    except RuntimeError as exc:
        if decided.acquire(blocking=False):
            raise InfrastructureError(
                "no thread can be started: the system allows no more, or no more memory "
                "(ulimit -u, ulimit -v)"
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


class Background:
    """Makes slow calls, one at a time, in a thread of its own, so that nobody waits for them. Thread-safe.

    A call that fails is not repeated here. ``start`` once; ``stop`` any number of times.
    """

    def __init__(self, thread_name: str, log: logging.Logger, *, unfinished: str) -> None:
        """``unfinished`` is what is logged if a call is still being made at the end."""
        self._thread_name = thread_name
        self._log = log
        self._unfinished = unfinished
        self._changed = threading.Condition()
        self._calls: dict[str, Callable[[], None]] = {}
        """Pending work by name, in order; the first is being done."""
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_thread(self._loop, self._thread_name)

    def stop(self, deadline_s: float) -> None:
        """End after all work, or after ``deadline_s``; the next start does the rest."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(deadline_s)
            if self._thread.is_alive():
                self._log.warning("%s", self._unfinished)

    def add(
        self, name: str, call: Callable[[], None], log_fields: Mapping[str, object] | None = None
    ) -> None:
        """Add work; a name that is pending or in progress is not added again."""

        def guarded() -> None:
            try:
                call()
            except (InfrastructureError, JobFailed) as exc:
                self._log.warning("%s: %s; it is tried again later", name, exc, extra=log_fields)
            except Exception:
                self._log.exception("%s failed unexpectedly", name, extra=log_fields)

        with self._changed:
            self._calls.setdefault(name, guarded)
            self._changed.notify_all()

    def do_waiting(self) -> None:
        """Do all pending work in the caller's thread."""
        while True:
            with self._changed:
                if not self._calls:
                    return
                name, call = next(iter(self._calls.items()))
            call()
            with self._changed:
                del self._calls[name]

    def _loop(self) -> None:
        while True:
            self.do_waiting()
            with self._changed:
                if not self._calls:
                    if self._stopping:
                        return
                    self._changed.wait()


@record
class _Busy:
    """A running thread, and the user it works for."""

    thread: threading.Thread
    user_id: str
    is_retry: bool


class ThreadsByKey:
    """Threads that each work for a key of a user: one per key at a time, with a maximum in total.

    Thread-safe. A user gets another thread only while more threads are free than the user has: a single user
    gets at most half, two users three quarters. Retries, which may all wait for the same dead server, get at
    most half of the threads, shared by users in the same way. So slow work for one key or user does not delay
    others. ``ended`` is called after the end of each thread.
    """

    def __init__(self, max_threads: int, ended: Callable[[], object] = lambda: None) -> None:
        self._max_threads = max_threads
        self._ended = ended
        self._lock = threading.Lock()
        self._busy: dict[str, _Busy] = {}
        self._stopping = False

    @property
    def is_full(self) -> bool:
        """Whether the maximum number of threads is running."""
        with self._lock:
            return len(self._busy) >= self._max_threads

    def keys(self) -> list[str]:
        """Return the keys that have a thread."""
        with self._lock:
            return list(self._busy)

    def full_users(self, *, is_retry: bool) -> list[str]:
        """Return the users who have threads and get no further one at the moment."""
        with self._lock:
            users = {busy.user_id for busy in self._busy.values()}
            return [user_id for user_id in users if not self._may_start(user_id, is_retry=is_retry)]

    def start(
        self, key: str, user_id: str, work: Callable[[], object], name: str, *, is_retry: bool = False
    ) -> bool:
        """Start a thread for ``work``, and return whether it was started.

        It is not if its key has a thread, the user gets no further one, or all are stopping. Raises as
        ``start_thread``.
        """

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    del self._busy[key]
                self._ended()

        with self._lock:
            if self._stopping or key in self._busy or not self._may_start(user_id, is_retry=is_retry):
                return False
            # The thread can end only after it is registered, because its end takes the lock.
            self._busy[key] = _Busy(start_thread(run, name), user_id, is_retry)
            return True

    def _may_start(self, user_id: str, *, is_retry: bool) -> bool:
        """Return whether a user gets another thread. The lock is held."""
        busy = self._busy.values()
        retries = Counter(thread.user_id for thread in busy if thread.is_retry)
        return _is_below_share(Counter(thread.user_id for thread in busy), user_id, self._max_threads) and (
            not is_retry or _is_below_share(retries, user_id, self._max_threads // 2)
        )

    def stop(self, deadline: float) -> None:
        """Start no more threads, and wait until all have ended, or until that time of ``monotonic``."""
        with self._lock:
            self._stopping = True
            threads = [busy.thread for busy in self._busy.values()]
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))


class SlotsByUser:
    """Slots that users wait for, and share as they do the threads of ``ThreadsByKey``. Thread-safe."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._changed = threading.Condition()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def hold(self, user_id: str, problem: str, *, timeout_s: float) -> Iterator[None]:
        """Hold a slot while the body runs; raises ``Busy`` with ``problem`` if there is none in time."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: _is_below_share(self._taken, user_id, self._slots), timeout_s
            ):
                raise Busy(problem)
            self._taken[user_id] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[user_id] -= 1
                # Remove users without a slot.
                self._taken += Counter()
                self._changed.notify_all()


def _is_below_share(busy: Counter[str], user_id: str, most: int) -> bool:
    """Return whether more of ``most`` threads or slots are free than a user has."""
    return busy[user_id] < most - busy.total()
