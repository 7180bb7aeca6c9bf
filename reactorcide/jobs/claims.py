"""Claiming tasks of our jobs from queues that other programs may share."""

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from time import monotonic

from reactorcide import crashpoints
from reactorcide.corndogs.task import Task
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable, IllegalTransition
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.domain.workers import AttemptLease
from reactorcide.jobs import JobContext, lifecycle, tasks
from reactorcide.jobs.tasks import TASK_CLAIMED, TASK_WAITING
from reactorcide.lib.records import record

log = logging.getLogger("reactorcide.jobs")

MAX_TASKS_A_ROUND = 300
"""Maximum number of tasks claimed in one round, including foreign ones."""
_MAX_ROUND_S = 2.0
"""Maximum duration of a round: leases have to be renewed, and foreign tasks put back."""
_FIRST_REST_S = 0.1
_MAX_REST_S = 2.0
_FORGET_S = 60.0
"""After this time without a pause the next pause is short again."""


class Claims:
    """Rounds of claiming. For one thread.

    In a shared queue Corndogs also hands out tasks of other programs. A round holds these until it reaches
    our own tasks, and then puts them back with their states, timeout and priority; only their age is new. If
    the worker is killed meanwhile, each comes back after its own timeout, or else after the lease that it
    gets for the round.
    """

    def __init__(
        self,
        context: JobContext,
        *,
        lease_s: float,
        is_stopping: Callable[[], bool],
        lost_after_s: float | None = None,
    ) -> None:
        """``lost_after_s`` is how long attempts without a lease of their own go on without being heard of."""
        self._context = context
        self._lost_after_s = lost_after_s
        self._lease_s = lease_s
        self._is_stopping = is_stopping
        self._rests: dict[str, _Rest] = {}
        self._held: list[_Held] = []
        self._done_with: set[str] = set()
        self._remaining_tasks = 0
        self._ends_at = 0.0
        self._problem: CorndogsError | None = None

    def round(
        self,
        worker_id: str,
        queues: Sequence[str],
        check_ready: Callable[[], None],
        new_lease: Callable[[], AttemptLease | None] = lambda: None,
    ) -> Generator[tuple[Job, Task], None, None]:
        """Yield waiting jobs that were claimed for a worker, with their tasks; the caller closes the
        iterator.

        ``queues`` are those of the worker; empty means all. ``check_ready`` is called before each claim, and
        raises if no job can run; ``new_lease`` returns the lease of an attempt of a worker on another
        machine. Raises ``CorndogsError``, also when it is closed.
        """
        self.begin()
        try:
            while not self._is_stopping():
                waiting = self._context.store.queues.to_poll()
                served = [queue for queue in waiting if not queues or queue in queues]
                if not served:
                    return
                check_ready()
                claimed = self.next(served)
                if claimed is None:
                    return
                task, job_id = claimed
                job = take(
                    self._context, task, job_id, worker_id, new_lease(), lost_after_s=self._lost_after_s
                )
                if job is not None:
                    yield job, task
        finally:
            self.end()

    def begin(self) -> None:
        """Start a round."""
        now = monotonic()
        self._rests = {queue: rest for queue, rest in self._rests.items() if rest.until > now - _FORGET_S}
        self._done_with = set()
        self._remaining_tasks = MAX_TASKS_A_ROUND
        self._ends_at = now + _MAX_ROUND_S
        self._problem = None

    def next(self, queues: Sequence[str]) -> tuple[Task, str] | None:
        """Claim and lease a task of ours from the first of these queues that has one.

        Returns it and its job's id; ``None`` if there is none, or the round has reached a limit. Raises
        ``CorndogsUnavailable``; after another error of one queue the other queues are still tried.
        """
        for queue in queues:
            rest = self._rests.get(queue)
            if queue in self._done_with or (rest is not None and rest.until > monotonic()):
                continue
            try:
                claimed = self._next_of(queue)
            except CorndogsUnavailable:
                raise
            except CorndogsError as exc:
                self._problem = exc
                self._done_with.add(queue)
                continue
            if claimed is not None:
                return claimed
        return None

    def end(self) -> None:
        """End the round: put back foreign tasks. Raises the first error of a queue."""
        held, self._held = self._held, []
        for item in held:
            if not self._put_back(item):
                break
        if self._problem is not None:
            raise self._problem

    def _next_of(self, queue: str) -> tuple[Task, str] | None:
        saw_foreign = False
        while self._remaining_tasks > 0 and monotonic() < self._ends_at and not self._is_stopping():
            claimed_at = monotonic()
            task = self._context.corndogs.get_next_task(queue, TASK_WAITING)
            if task is None:
                break
            self._remaining_tasks -= 1
            crashpoints.reached("claim-task-taken")
            job_id = tasks.job_of(task, self._context.instance_id)
            if job_id is not None:
                tasks.lease(self._context.corndogs, task, self._lease_s)
                self._rests.pop(queue, None)
                return task, job_id
            saw_foreign = True
            self._hold(task, claimed_at)
        self._done_with.add(queue)
        if saw_foreign:
            # The queue has only foreign tasks, which their owners need back.
            rest = self._rests.setdefault(queue, _Rest())
            rest.begin()
        return None

    def _hold(self, task: Task, claimed_at: float) -> None:
        goes_on_waiting = task.current_state == TASK_WAITING
        is_leased = goes_on_waiting or task.timeout_s <= 0
        # Drop the payload, because hundreds would need much memory: an update without one leaves the stored
        # payload.
        without_payload = replace(task, payload=b"")
        ours_s = self._lease_s if is_leased else task.timeout_s
        self._held.append(_Held(without_payload, claimed_at + ours_s))
        if goes_on_waiting:
            # Its claimed state equals its waiting state, so it would be handed out again and again.
            task = replace(task, current_state=TASK_CLAIMED)
        if is_leased:
            tasks.lease(self._context.corndogs, task, self._lease_s)

    def _put_back(self, held: "_Held") -> bool:
        """Put one task back; returns whether to continue with the next one."""
        task = held.task
        if monotonic() >= held.ours_until:
            # Its timeout has passed, so another program may hold it.
            return True
        try:
            self._context.corndogs.update_task(
                task.uuid,
                task.queue,
                task.current_state,
                new_state=TASK_WAITING,
                auto_target_state=task.current_state,
                timeout_s=task.timeout_s,
                priority=task.priority,
            )
        except CorndogsError as exc:
            # Not retried: the update may have succeeded, and then another program may hold the task.
            log.warning("foreign tasks come back only after their timeouts: %s", exc)
            return not isinstance(exc, CorndogsUnavailable)
        return True


def take(
    context: JobContext,
    task: Task,
    job_id: str,
    worker_id: str,
    lease: AttemptLease | None = None,
    *,
    lost_after_s: float | None = None,
) -> Job | None:
    """Claim the job of a claimed task, and return it if it waited for this task.

    Otherwise the task is completed, unless it belongs to a running job, whose worker may be alive.
    """
    job = context.store.jobs.find(job_id)
    if job is None:
        _complete(context, task, job_id)
        return None
    if job.status is JobStatus.RUNNING and job.corndogs_task_id == task.uuid:
        # Its worker is late with the renewal, or dead. The task comes back after a lease.
        return None
    is_the_one = job.corndogs_task_id in (None, task.uuid) and job.definition.queue_name == task.queue
    if job.is_final or not is_the_one:
        _complete(context, task, job_id)
        return None
    try:
        job = lifecycle.claim(context, job_id, task.uuid, worker_id, lease, lost_after_s=lost_after_s)
    except IllegalTransition:
        # It was cancelled at the same time.
        _complete(context, task, job_id)
        return None
    crashpoints.reached("claim-row-written")
    return job


def _complete(context: JobContext, task: Task, job_id: str) -> None:
    """Complete a task that no job waits for; if that fails it comes back after its lease."""
    try:
        tasks.end(context.corndogs, task.uuid, task.queue, tasks.TASK_CLAIMED, cancelled=False)
    except CorndogsUnavailable:
        raise
    except CorndogsError as exc:
        log.warning("its task stays open for now: %s", exc, extra={"job_id": job_id})
        return
    context.store.tasks.closed(job_id, task.uuid)


@record
class _Held:
    """A claimed task of another program."""

    task: Task
    ours_until: float
    """When its timeout or its lease ends, by ``time.monotonic``."""


class _Rest:
    """The growing pause for a queue that had only foreign tasks."""

    def __init__(self) -> None:
        self._length_s = _FIRST_REST_S
        self.until = 0.0

    def begin(self) -> None:
        """Start another pause."""
        self.until = monotonic() + self._length_s
        self._length_s = min(2 * self._length_s, _MAX_REST_S)
