"""The deliverer: processes deliveries of forges, in threads beside the worker."""

import logging
import threading
from functools import partial
from time import monotonic

from reactorcide.deliveries.work import work_on
from reactorcide.domain.deliveries import ARRIVED, Delivery
from reactorcide.domain.peers import Alone, Turns
from reactorcide.duties import Duties, Duty
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import LOOK_EVERY_S
from reactorcide.runs import RunContext
from reactorcide.threads import ThreadsByKey, start_thread

log = logging.getLogger("reactorcide.deliveries")

_MAX_AT_ONCE = 8
"""Deliveries whose commits are fetched at once."""
_TURN = "delivery"
_PAUSE_S = 1.0
"""After a failure that could not even be written."""


class Deliverer:
    """Works on each delivery in a thread of its own, one of a project at a time: in the order of arrival.

    So a slow server delays no other project, and users share the threads: see ``ThreadsByKey``. ``start``
    once; ``stop`` is idempotent. All is recorded in the database, so that a restart loses nothing.
    """

    def __init__(self, context: RunContext, turns: Turns | None = None) -> None:
        """``turns`` are taken for each project, if there may be other services."""
        self._context = context
        self._turns = turns or Alone()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._threads = ThreadsByKey(_MAX_AT_ONCE, lambda: self._wake.set())
        """Those that work, by the id of the project."""
        self._duties = Duties([Duty("process deliveries", 0.0, self._look, LOOK_EVERY_S)], log)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start working; first on what an earlier process has left."""
        self._thread = start_thread(self._loop, "deliverer")

    def stop(self, deadline_s: float) -> None:
        """Begin nothing more, and wait up to ``deadline_s`` for what has begun; the next start repeats it."""
        deadline = monotonic() + deadline_s
        self._stopping.set()
        self._wake.set()
        self._threads.stop(deadline)
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - monotonic()))

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
        while not (self._stopping.is_set() or self._threads.is_full):
            delivery = self._due(is_retry=False) or self._due(is_retry=True)
            if delivery is None:
                return
            if not self._turns.take(_TURN, delivery.project_id):
                # Another service was faster.
                continue
            work = partial(self._work_on, delivery)
            user_id = self._context.jobs.store.projects.creator(delivery.project_id)
            is_retry = delivery.tried_at_ms is not None
            if not self._threads.start(delivery.project_id, user_id, work, "delivery", is_retry=is_retry):
                self._turns.give_back(_TURN, delivery.project_id)
                # All others are retries as well.
                return

    def _due(self, *, is_retry: bool) -> Delivery | None:
        """Return the delivery that has waited longest and may have a thread."""
        return self._context.jobs.store.deliveries.due(
            now_ms=now_ms(),
            is_retry=is_retry,
            besides=[*self._threads.keys(), *self._turns.others(_TURN)],
            besides_users=self._threads.full_users(is_retry=is_retry),
        )

    def _work_on(self, delivery: Delivery) -> None:
        try:
            try:
                work_on(self._context, delivery)
            finally:
                self._turns.give_back(_TURN, delivery.project_id)
        except Exception:
            log.exception("a delivery failed unexpectedly", extra={"delivery_id": delivery.delivery_id})
            self._stopping.wait(_PAUSE_S)
