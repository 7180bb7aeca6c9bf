"""Keeping jobs and the tasks of the queue in step, whoever works."""

from collections.abc import Callable, Iterable
from time import time_ns
from typing import TypeVar

from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable
from reactorcide.domain.jobs import JobStatus
from reactorcide.jobs import JobContext, lifecycle, requeue
from reactorcide.jobs.submit import enqueue
from reactorcide.lib.clock import now_ms

T = TypeVar("T")

_MAX_CLOSED = 100
_MAX_CHECKED = 50
"""At a time: so thousands of queued jobs are gone through in minutes, by 25 calls a second."""
_QUEUED_LONG_MS = 5_000
"""Only then the queue is asked for the task of a job."""


class QueueUpkeep:
    """What is to be done again and again so that no job waits in vain. For one thread.

    Every method may be repeated at any time, and raises ``CorndogsError`` if Corndogs did not do its work;
    a task or a queue that it refuses does not hold up the others.
    """

    def __init__(self, context: JobContext, *, lease_s: float) -> None:
        self._context = context
        self.lease_s = lease_s
        self._started_at_ms = now_ms()
        self._checked_up_to = self._closed_up_to = ""

    def submit_due(self) -> None:
        """Hand committed jobs to Corndogs that it has not got."""
        for job, failures in self._context.store.tasks.to_submit(now_ms=now_ms()):
            after = enqueue(self._context, job, failures=failures)
            if after is not None and after.status is JobStatus.SUBMIT_FAILED:
                self._context.corndogs.check_health()

    def check_tasks(self) -> None:
        """Ask for the tasks of jobs that have been queued for long, some at a time, in turn."""
        # Whatever was queued before this start may be what a killed service had just claimed.
        before_ms = max(now_ms() - _QUEUED_LONG_MS, self._started_at_ms)
        jobs = self._context.store.tasks.queued_long(
            before_ms=before_ms, now_ms=now_ms(), after=self._checked_up_to, limit=_MAX_CHECKED
        )
        self._checked_up_to = jobs[-1].job_id if len(jobs) == _MAX_CHECKED else ""
        for_each(jobs, lambda job: requeue.check(self._context, job, lease_s=self.lease_s))

    def close_tasks(self) -> None:
        """Close the tasks of jobs that are over, some at a time, in turn."""
        jobs = self._context.store.tasks.to_close(after=self._closed_up_to, limit=_MAX_CLOSED)
        self._closed_up_to = jobs[-1].job_id if len(jobs) == _MAX_CLOSED else ""
        for_each(jobs, lambda job: lifecycle.end_task(self._context, job))

    def time_out_tasks(self) -> None:
        """Bring back the tasks of workers that went away."""
        queues = self._context.store.queues.active()
        for_each(queues, lambda queue: self._context.corndogs.clean_up_timed_out(time_ns(), queue))


def for_each(items: Iterable[T], call: Callable[[T], object]) -> None:
    """Do something for each; one that Corndogs refuses does not keep the others from being served.

    Raises ``CorndogsUnavailable`` at once, and at the end the first error that Corndogs has answered with.
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
