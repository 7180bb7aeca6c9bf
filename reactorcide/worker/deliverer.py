"""The deliverer: works on deliveries of forges, in threads beside the worker."""

import logging
import threading
from time import monotonic

from reactorcide.deliveries.work import due, work_on
from reactorcide.domain.deliveries import ARRIVED, Delivery
from reactorcide.lib.notifier import LOOK_EVERY_S
from reactorcide.runs import RunContext
from reactorcide.threads import start_thread
from reactorcide.worker.duties import Duties, Duty

log = logging.getLogger("reactorcide.deliveries")

_MAX_AT_ONCE = 4
"""Deliveries whose commits are fetched at once."""
_PAUSE_S = 1.0
"""After a failure that could not even be written."""


class Deliverer:
    """Works on each delivery in a thread of its own, one of a project at a time: in the order of arrival.

    So a slow server delays no other project. ``start`` once; ``stop`` is idempotent. All is recorded in the
    database, so that a restart loses nothing.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        """Those that work, by the id of the project."""
        self._duties = Duties([Duty("work on deliveries", 0.0, self._look, LOOK_EVERY_S)], log)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start working; first on what an earlier process has left."""
        self._thread = start_thread(self._loop, "deliverer")

    def stop(self, deadline_s: float) -> None:
        """Begin nothing more, and wait up to ``deadline_s`` for what has begun; the next start repeats it."""
        deadline = monotonic() + deadline_s
        self._stopping.set()
        self._wake.set()
        with self._lock:
            threads = [*self._threads.values(), *filter(None, [self._thread])]
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))

    def _loop(self) -> None:
        notifier = self._context.jobs.notifier
        with notifier.watching(ARRIVED) as self._wake:
            # It is closed when the service is about to stop.
            while not (self._stopping.is_set() or notifier.closed):
                self._wake.clear()
                self._duties.do_due()
                self._wake.wait(LOOK_EVERY_S)

    def _look(self) -> None:
        """Start threads for deliveries that are due."""
        while not self._stopping.is_set():
            with self._lock:
                busy = list(self._threads)
                if len(busy) >= _MAX_AT_ONCE:
                    return
                delivery = due(self._context, besides=busy)
                if delivery is None:
                    return
                self._threads[delivery.project_id] = self._start_thread(delivery)

    def _start_thread(self, delivery: Delivery) -> threading.Thread:
        def run() -> None:
            try:
                work_on(self._context, delivery)
            except Exception:
                log.exception("a delivery failed unexpectedly", extra={"delivery_id": delivery.delivery_id})
                self._stopping.wait(_PAUSE_S)
            finally:
                with self._lock:
                    del self._threads[delivery.project_id]
                self._wake.set()

        # It can end only after it has been noted, for its end takes the lock.
        return start_thread(run, "delivery")
