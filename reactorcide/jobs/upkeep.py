"""Keeping jobs and the tasks of the queue consistent, independent of any worker."""

from collections.abc import Callable, Iterable
from time import time_ns
from typing import TypeVar

from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable
from reactorcide.domain.jobs import JobStatus
from reactorcide.domain.peers import Alone, Turns, turn
from reactorcide.jobs import JobContext, lifecycle, requeue
from reactorcide.jobs.submit import enqueue
from reactorcide.lib.clock import now_ms

T = TypeVar("T")

_SUBMITTING = "submit"
_MAX_CLOSED = 100
_MAX_CHECKED = 50
"""Tasks checked at a time: 25 calls a second check thousands of queued jobs within minutes."""
_QUEUED_LONG_MS = 5_000
"""The age after which the task of a queued job is looked up."""


class QueueUpkeep:
    """Periodic checks, so that no job waits for ever. For one thread.

    Every method may be repeated at any time, and raises ``CorndogsError`` if Corndogs fails; a refused task
    or queue does not block the others.
    """

    def __init__(self, context: JobContext, *, lease_s: float, turns: Turns | None = None) -> None:
        """``turns`` are taken to submit jobs, if there may be other services."""
        self._context = context
        self._turns = turns or Alone()
        self.lease_s = lease_s
        self._started_at_ms = now_ms()
        self._checked_up_to = self._closed_up_to = ""

    def submit_due(self) -> None:
        """Enqueue committed jobs that Corndogs does not have."""
        # One service at a time: two would make two tasks of each job.
        if not self._context.store.tasks.to_submit(now_ms=now_ms(), limit=1):
            return
        with turn(self._turns, _SUBMITTING) as is_taken:
            if is_taken:
                self._submit_due()

    def _submit_due(self) -> None:
        for job, failures in self._context.store.tasks.to_submit(now_ms=now_ms()):
            after = enqueue(self._context, job, failures=failures)
            if after is not None and after.status is JobStatus.SUBMIT_FAILED:
                self._context.corndogs.check_health()

    def check_tasks(self) -> None:
        """Look up the tasks of jobs that have been queued for long, some at a time, in turn."""
        # A killed service may just have claimed any job that was queued before this start.
        before_ms = max(now_ms() - _QUEUED_LONG_MS, self._started_at_ms)
        jobs = self._context.store.tasks.queued_long(
            before_ms=before_ms, now_ms=now_ms(), after=self._checked_up_to, limit=_MAX_CHECKED
        )
        self._checked_up_to = jobs[-1].job_id if len(jobs) == _MAX_CHECKED else ""
        for_each(jobs, lambda job: requeue.check(self._context, job, lease_s=self.lease_s))

    def close_tasks(self) -> None:
        """Close the tasks of ended jobs, some at a time, in turn."""
        jobs = self._context.store.tasks.to_close(after=self._closed_up_to, limit=_MAX_CLOSED)
        self._closed_up_to = jobs[-1].job_id if len(jobs) == _MAX_CLOSED else ""
        for_each(jobs, lambda job: lifecycle.end_task(self._context, job))

    def time_out_tasks(self) -> None:
        """Return the tasks of lost workers to their queues."""
        queues = self._context.store.queues.active()
        for_each(queues, lambda queue: self._context.corndogs.clean_up_timed_out(time_ns(), queue))


def for_each(items: Iterable[T], call: Callable[[T], object]) -> None:
    """Call a function for each item; an item that Corndogs refuses does not block the others.

    Raises ``CorndogsUnavailable`` at once, and at the end the first other error of Corndogs.
    """
    problem: CorndogsError | None = None
    for item in items:
        try:
            call(item)
        except CorndogsUnavailable:
            raise
        except CorndogsError as exc:
            problem = problem or exc
    if problem is not None:
        raise problem
