"""Fair shares: the clients of one address hardly delay those of others.

Each address has its own share of the loop's turns and of the threads. Clients behind one proxy have one share
together: to be fair among them is up to the proxy.
"""

import logging
import selectors
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from reactorcide.domain.errors import InfrastructureError
from reactorcide.threads import start_thread

if TYPE_CHECKING:
    from reactorcide.server.connection import Connection

log = logging.getLogger("reactorcide.web")

_MAX_RUNNING = 8
"""Requests of one address in threads at once, without those that mostly wait."""
_MAX_RUNNING_BESIDE_OTHERS = 1
"""The same while other addresses have requests: each thread makes these wait longer for Python's lock."""
_BESIDE_S = 1.0
_MAX_PENDING = 32
"""Requests of one address, waiting or running: at this number its clients are no longer read."""

Task = Callable[[], None]


class Share:
    """The connections of one address, and its requests that wait for a thread."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.selector = selectors.DefaultSelector()
        # Oldest first. For the loop only.
        self.connections: dict[Connection, None] = {}
        self.is_polled = False
        # For the pool only.
        self.waiting: deque[Task] = deque()
        self.running = 0

    @property
    def is_busy(self) -> bool:
        """Whether this address has its maximum of requests."""
        return len(self.waiting) + self.running >= _MAX_PENDING

    def held_bytes(self) -> int:
        """Return the memory that its requests and answers take."""
        return sum(connection.held_bytes for connection in self.connections)


class Pool:
    """Threads that work on the requests of all shares in turn. Thread-safe.

    A request that mostly waits, such as a follower's, calls ``takes_long`` and then counts neither for its
    share nor for ``max_short``. The application limits these to fewer than ``max_threads - max_short``.
    """

    def __init__(self, max_threads: int, max_short: int, became_free: Callable[[Share], None]) -> None:
        """``became_free`` is called, in any thread, when a share is no longer busy."""
        self._max_threads = max_threads
        self._max_short = max_short
        self._became_free = became_free
        self._lock = threading.Lock()
        self._turn: deque[Share] = deque()
        self._ready: SimpleQueue[tuple[Share, Task] | None] = SimpleQueue()
        self._running = 0
        self._idle = 0
        """Threads that wait for a task, less the tasks that wait for a thread."""
        self._latest: Share | None = None
        self._is_beside_until = 0.0
        self._threads: list[threading.Thread] = []
        self._current = threading.local()

    def start(self) -> None:
        """Start one thread, which does all tasks if no other can be started."""
        with self._lock:
            self._add_thread()

    def submit(self, share: Share, task: Task) -> None:
        """Have a thread call ``task`` when its share has its turn."""
        with self._lock:
            if share is not self._latest:
                if self._latest is not None:
                    self._is_beside_until = monotonic() + _BESIDE_S
                self._latest = share
            if not share.waiting:
                self._turn.append(share)
            share.waiting.append(task)
            self._start()

    def takes_long(self) -> None:
        """Stop counting the task of this thread: it mostly waits."""
        share: Share | None = getattr(self._current, "share", None)
        if share is not None:
            self._current.share = None
            with self._lock:
                self._leave(share)

    def stop(self) -> None:
        """Have every thread end after its task."""
        with self._lock:
            for _ in self._threads:
                self._ready.put(None)

    def _start(self) -> None:
        """Start the tasks that the limits allow. The lock is held."""
        max_running = _MAX_RUNNING_BESIDE_OTHERS if monotonic() < self._is_beside_until else _MAX_RUNNING
        for _ in range(len(self._turn)):
            if self._running >= self._max_short:
                return
            share = self._turn.popleft()
            if share.running < max_running:
                share.running += 1
                self._running += 1
                self._ready.put((share, share.waiting.popleft()))
                self._idle -= 1
                if self._idle < 0 and len(self._threads) < self._max_threads:
                    try:
                        self._add_thread()
                    except InfrastructureError as exc:
                        log.warning("a request waits until another has been answered: %s", exc)
            if share.waiting:
                self._turn.append(share)

    def _add_thread(self) -> None:
        self._threads.append(start_thread(self._work, "request"))
        self._idle += 1

    def _leave(self, share: Share) -> None:
        """Stop counting a task. The lock is held."""
        was_busy = share.is_busy
        share.running -= 1
        self._running -= 1
        self._start()
        if was_busy and not share.is_busy:
            self._became_free(share)

    def _work(self) -> None:
        while (item := self._ready.get()) is not None:
            share, task = item
            self._current.share = share
            try:
                task()
            except BaseException:
                # The thread continues with other tasks.
                log.exception("a request failed unexpectedly")
            finally:
                # An idle thread must not hold the memory of its last request.
                del task, item
                with self._lock:
                    self._idle += 1
                    if self._current.share is not None:
                        self._leave(share)
