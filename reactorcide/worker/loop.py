"""The worker: claims tasks, runs their jobs, renews their leases, and sweeps up what was left."""

import logging
import random
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import monotonic, time_ns
from typing import TypeVar

from reactorcide import crashpoints
from reactorcide.corndogs.task import Task
from reactorcide.domain.clock import now_ms
from reactorcide.domain.errors import (
    CorndogsError,
    CorndogsUnavailable,
    IllegalTransition,
    InfrastructureError,
    JobFailed,
    NotFound,
)
from reactorcide.domain.jobs import Job, JobStatus, OpenAttempt
from reactorcide.domain.workers import WorkerView
from reactorcide.jobs import JobContext, lifecycle, requeue, tasks
from reactorcide.jobs.submit import enqueue
from reactorcide.runner import ContainerInfo, Runner
from reactorcide.worker.attempt import Attempt, Limits
from reactorcide.worker.claims import Claims
from reactorcide.worker.disk import DiskWatch
from reactorcide.worker.interrupt import Reason
from reactorcide.worker.lease import Lease
from reactorcide.worker.prepare import Preparation

T = TypeVar("T")

log = logging.getLogger("reactorcide.worker")

_SHORTEST_POLL_S = 0.05
_LONGEST_POLL_S = 1.0
_SWEEP_EVERY_S = 1.0
_TIDY_EVERY_S = 5.0
_RECOVER_EVERY_S = 15.0
_ENGINE_FRESH_S = 1.0
"""An engine that has answered this recently is taken to be there."""
_RETRY_DUTY_S = 1.0
_DRAINING = "the service is about to stop: it waits for the jobs that run, and takes no other"
_CLAIMING = ("take over", "claim")
"""What has to work for a job to be taken."""
_LOOK_FOR_TASKS_EVERY_S = 2.0
_TASKS_CLOSED = 100
_TASKS_LOOKED_FOR = 50
"""At a time: so thousands of queued jobs are gone through in minutes, by 25 calls a second."""
_QUEUED_LONG_MS = 5_000
"""Only then the queue is asked for the task of a job."""


class Worker:
    """One thread that claims and supervises, and one thread for each running attempt.

    ``start`` and ``stop`` once each; ``stop`` is idempotent. All other methods may be called from
    any thread.
    """

    def __init__(
        self,
        context: JobContext,
        runner: Runner,
        preparation: Preparation,
        limits: Limits,
        *,
        worker_id: str,
        concurrency: int,
        lease_s: float,
        queues: Sequence[str],
        check_disk: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a worker; ``start`` starts it.

        ``check_disk`` raises ``InfrastructureError`` where there is no room for another job's output.
        """
        self._context = context
        self._runner = runner
        self._preparation = preparation
        self._limits = limits
        self._worker_id = worker_id
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._queues = tuple(queues)
        self._check_disk = check_disk
        self._drained: Callable[[], None] | None = None
        self._told_drained = False
        self._recovered = False
        self._lock = threading.Lock()
        self._running: dict[str, Attempt] = {}
        self._threads: set[threading.Thread] = set()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._sweeper: threading.Thread | None = None
        self._disk_watch = DiskWatch(self._attempts) if limits.max_disk_bytes else None
        self._trouble: dict[str, str] = {}
        self._engine_seen = float("-inf")
        self._last_seen_ms = now_ms()
        self._poll_s = _SHORTEST_POLL_S
        self._claims = Claims(context, lease_s=lease_s, is_stopping=lambda: self._stopping)
        self._started_at_ms = 0
        self._looked_for = self._closed_up_to = ""

    def start(self) -> None:
        """Start claiming; attempts that an earlier process left are taken over first."""
        self._started_at_ms = now_ms()
        self._thread = threading.Thread(target=self._loop, name="worker", daemon=True)
        self._thread.start()
        if self._disk_watch is not None:
            self._disk_watch.start()

    def stop(self, deadline_s: float) -> None:
        """Stop claiming and let go of what runs: containers go on, the next start takes them over.

        Returns when every thread has ended, or after ``deadline_s``.
        """
        deadline = monotonic() + deadline_s
        with self._lock:
            self._stopping = True
            attempts = list(self._running.values())
        for attempt in attempts:
            attempt.interrupt.set(Reason.STOPPING)
        self._wake.set()
        for thread in (self._thread, self._sweeper, *self._threads_now()):
            if thread is not None:
                thread.join(max(0.0, deadline - monotonic()))
                if thread.is_alive():
                    log.warning("%s has not ended in time", thread.name)
        if self._disk_watch is not None:
            self._disk_watch.stop(max(0.0, deadline - monotonic()))

    def drain(self, drained: Callable[[], None]) -> None:
        """Claim nothing more, and call ``drained``, once, when the last job that runs here has ended."""
        self._drained = drained
        log.info("draining: jobs that run are waited for, no other is taken")
        self._look()

    def wake(self) -> None:
        """Look for work at once, if there is a place for it; when one comes free that is done anyway.

        A burst of submissions to a busy worker so does not make it look, and hold them up, each time.
        """
        if len(self._running) < self._concurrency:
            self._look()

    def _look(self) -> None:
        self._poll_s = _SHORTEST_POLL_S
        self._wake.set()

    def stop_attempt(self, job_id: str) -> None:
        """Stop the container of a job that was cancelled, if it runs here."""
        with self._lock:
            attempt = self._running.get(job_id)
        if attempt is not None:
            attempt.interrupt.set(Reason.CANCELLED)

    def check(self) -> None:
        """Raise ``InfrastructureError`` unless the worker does its rounds and takes jobs."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            raise InfrastructureError("the worker does not run; restart the service")
        if self._drained is not None:
            raise InfrastructureError(_DRAINING)

    def view(self) -> WorkerView:
        """Return what there is to tell about this worker."""
        with self._lock:
            running = tuple(sorted(self._running))
        return WorkerView(
            worker_id=self._worker_id,
            host=socket.gethostname(),
            concurrency=self._concurrency,
            running_job_ids=running,
            last_seen_ms=self._last_seen_ms,
            queues=self._queues,
            trouble=_DRAINING
            if self._drained is not None
            else next((self._trouble[what] for what in _CLAIMING if what in self._trouble), None),
        )

    # --- the loop ------------------------------------------------------------------------------

    def _loop(self) -> None:
        duties = [
            _Duty("take over", _RECOVER_EVERY_S, self._recover),
            _Duty("sweep", _SWEEP_EVERY_S, self._submit_due),
            _Duty("renew", self._lease_s / 3, self._renew),
            _Duty("stamp", self._lease_s / 3, self._stamp),
            _Duty("look for tasks", _LOOK_FOR_TASKS_EVERY_S, self._look_for_tasks),
            _Duty("close tasks", min(_TIDY_EVERY_S, self._lease_s / 3), self._close),
            _Duty("time out tasks", min(_TIDY_EVERY_S, self._lease_s / 3), self._tidy),
        ]
        while not self._stopping:
            self._wake.clear()
            self._last_seen_ms = now_ms()
            for duty in duties:
                if duty.is_due():
                    self._guarded(duty.name, duty.run)
            if self._drained is not None:
                self._end_drained(self._drained)
            # Nothing is claimed before what an earlier process left running has been taken over.
            elif self._recovered and self._guarded("claim", self._claim_all):
                continue
            self._wake.wait(self._pause_s())

    def _end_drained(self, drained: Callable[[], None]) -> None:
        with self._lock:
            over = not self._running and not self._told_drained
            self._told_drained = self._told_drained or over
        if over:
            log.info("drained: no job runs any more")
            drained()

    def _guarded(self, what: str, call: Callable[[], object]) -> bool:
        """Do one thing; trouble with a part we depend on is logged once and does not end the loop."""
        try:
            done = call()
        except InfrastructureError as exc:
            if self._trouble.get(what) != str(exc):
                self._trouble[what] = str(exc)
                log.warning("%s: %s", what, exc)
            return False
        except Exception:
            log.exception("%s failed unexpectedly", what)
            return False
        if self._trouble.pop(what, None) is not None:
            log.info("%s: works again", what)
        return bool(done)

    def _pause_s(self) -> float:
        """Return how long to wait for a wake-up: growing, and spread so that workers do not march in step."""
        pause_s = self._poll_s * random.uniform(0.8, 1.2)  # noqa: S311  # spreading, not secrecy
        self._poll_s = min(self._poll_s * 2, _LONGEST_POLL_S)
        return pause_s

    # --- claiming ------------------------------------------------------------------------------

    def _claim_all(self) -> bool:
        """Claim while there are free places and waiting jobs; tells whether an attempt was begun."""
        begun = False
        self._claims.begin()
        try:
            while not self._stopping and len(self._running) < self._concurrency:
                queues = self._waiting_queues()
                if not queues:
                    break
                self._check_disk()
                self._check_engine()
                claimed = self._claims.next(queues)
                if claimed is None:
                    break
                if self._take(*claimed):
                    begun = True
                    self._poll_s = _SHORTEST_POLL_S
        finally:
            self._claims.end()
        return begun

    def _waiting_queues(self) -> list[str]:
        queues = self._context.store.queues.to_poll()
        return [queue for queue in queues if not self._queues or queue in self._queues]

    def _check_engine(self) -> None:
        """Raise ``EngineUnavailable`` where a claimed job could not be run anyway."""
        if monotonic() - self._engine_seen > _ENGINE_FRESH_S:
            self._runner.check()
            self._engine_seen = monotonic()

    def _take(self, task: Task, job_id: str) -> bool:
        """Judge a claimed task of ours, and run its job if that waits for it; tells whether it does."""
        try:
            job = self._context.store.jobs.get(job_id)
        except NotFound:
            self._complete(task, job_id)
            return False
        if job.status is JobStatus.RUNNING and job.corndogs_task_id == task.uuid:
            # Its worker is late with renewing, or dead. The task comes back after a lease.
            return False
        is_the_one = job.corndogs_task_id in (None, task.uuid) and job.definition.queue_name == task.queue
        if job.is_final or not is_the_one:
            self._complete(task, job_id)
            return False
        try:
            job = lifecycle.claim(self._context, job_id, task.uuid, self._worker_id)
        except IllegalTransition:
            # Cancelled in this instant.
            self._complete(task, job_id)
            return False
        crashpoints.reached("claim-row-written")
        self._run(self._attempt(job, task))
        return True

    def _complete(self, task: Task, job_id: str) -> None:
        """End a task that no job waits for; one that cannot be ended comes back after its lease."""
        try:
            tasks.end(self._context.corndogs, task.uuid, task.queue, tasks.TASK_CLAIMED, cancelled=False)
        except CorndogsUnavailable:
            raise
        except CorndogsError as exc:
            log.warning("its task stays open for now: %s", exc, extra={"job_id": job_id})
            return
        self._context.store.tasks.closed(job_id, task.uuid)

    def _attempt(self, job: Job, task: Task | None, adopted: OpenAttempt | None = None) -> Attempt:
        lease = Lease(self._context, task)
        return Attempt(self._context, self._runner, self._preparation, self._limits, job, lease, adopted)

    def _run(self, attempt: Attempt) -> None:
        job_id = attempt.job.job_id

        def run() -> None:
            try:
                attempt.run()
            finally:
                with self._lock:
                    del self._running[job_id]
                    self._threads.discard(threading.current_thread())
                self._look()

        thread = threading.Thread(target=run, name=f"job-{job_id}", daemon=True)
        with self._lock:
            self._running[job_id] = attempt
            self._threads.add(thread)
            if self._stopping:
                attempt.interrupt.set(Reason.STOPPING)
        thread.start()
        # A cancel between the claim and this moment found nothing to stop.
        if self._context.store.jobs.get(job_id).status is JobStatus.CANCELLED:
            attempt.interrupt.set(Reason.CANCELLED)

    def _threads_now(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._threads)

    # --- duties --------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Compare the database with the engine: take over attempts that nobody runs, remove orphans.

        At the start that is what an earlier process of this installation left; later, what went wrong here.
        """
        # First, so that an attempt that ends meanwhile is not taken for one that nobody runs.
        running = {(attempt.job.job_id, attempt.job.attempt) for attempt in self._attempts()}
        # Others with our labels are somebody's own: an image that was made of a job's container has them,
        # too.
        containers = {
            (found.job_id, found.attempt): found
            for found in self._runner.list(self._context.instance_id)
            if found.is_named
        }
        for left in self._context.store.attempts.unfinished():
            key = (left.job.job_id, left.job.attempt)
            if key not in running:
                self._take_over(left, containers.pop(key, None))
        self._remove_orphans([orphan for key, orphan in containers.items() if key not in running])
        if not self._recovered:
            # The engine now and then forgets to take one along with its container. Once is enough.
            self._runner.remove_stray_volumes(self._context.instance_id)
        self._recovered = True

    def _remove_orphans(self, orphans: Sequence[ContainerInfo]) -> None:
        """Remove containers that no job needs, in a thread of its own: the engine may hang over one."""

        def remove() -> None:
            for orphan in orphans:
                if self._stopping:
                    return
                log.info("removing a container that no job needs", extra={"job_id": orphan.job_id})
                try:
                    self._runner.remove(orphan.container_id)
                except (InfrastructureError, JobFailed) as exc:
                    log.warning("it is still there: %s", exc, extra={"job_id": orphan.job_id})

        if orphans and (self._sweeper is None or not self._sweeper.is_alive()):
            self._sweeper = threading.Thread(target=remove, name="orphans", daemon=True)
            self._sweeper.start()

    def _take_over(self, left: OpenAttempt, found: ContainerInfo | None) -> None:
        """Go on with an attempt that nobody runs."""
        job = left.job
        if left.container_id is None and found is not None:
            left = replace(left, container_id=found.container_id)
        # Not asked for: a queue that is away keeps nobody from looking after what runs.
        task = tasks.claimed_by(job)
        log.info("taking over a job that was left running", extra={"job_id": job.job_id})
        attempt = self._attempt(job, task, left)
        if job.status is JobStatus.CANCELLED:
            attempt.interrupt.set(Reason.CANCELLED)
        self._run(attempt)

    def _submit_due(self) -> None:
        """Hand committed jobs to Corndogs that it has not got.

        One that it refuses does not hold up the others. Raises ``CorndogsError`` where it takes none.
        """
        for job, failures in self._context.store.tasks.to_submit(now_ms=now_ms()):
            after = enqueue(self._context, job, failures=failures)
            if after is not None and after.status is JobStatus.SUBMIT_FAILED:
                self._context.corndogs.check_health()

    def _look_for_tasks(self) -> None:
        """Ask Corndogs for the tasks of jobs that have been queued for long, some at a time, in turn."""
        # Whatever was queued before this start may be what a killed service had just claimed.
        before_ms = max(now_ms() - _QUEUED_LONG_MS, self._started_at_ms)
        jobs = self._context.store.tasks.queued_long(
            before_ms=before_ms, now_ms=now_ms(), after=self._looked_for, limit=_TASKS_LOOKED_FOR
        )
        self._looked_for = jobs[-1].job_id if len(jobs) == _TASKS_LOOKED_FOR else ""
        _for_each(jobs, lambda job: requeue.check(self._context, job, lease_s=self._lease_s))

    def _renew(self) -> None:
        """Renew the leases of running attempts."""
        _for_each(self._attempts(), self._renew_one)

    def _stamp(self) -> None:
        """Stamp the rows of running attempts."""
        held = [(attempt.job.job_id, attempt.job.attempt) for attempt in self._attempts()]
        if held:
            self._context.store.attempts.heartbeat(held, now_ms=now_ms())

    def _attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._running.values())

    def _renew_one(self, attempt: Attempt) -> None:
        timeout_s = self._lease_s
        if attempt.deadline is not None:
            # Never past the job's own end: so a worker that hangs loses the task on time.
            left_s = attempt.deadline + self._limits.cancel_grace_s - monotonic()
            timeout_s = max(1.0, min(timeout_s, left_s))
        attempt.lease.renew(timeout_s)

    def _tidy(self) -> None:
        """Time out the tasks of workers that went away."""
        queues = self._context.store.queues.active()
        _for_each(queues, lambda queue: self._context.corndogs.clean_up_timed_out(time_ns(), queue))

    def _close(self) -> None:
        """Close the tasks of jobs that are over, some at a time, in turn."""
        jobs = self._context.store.tasks.to_close(after=self._closed_up_to, limit=_TASKS_CLOSED)
        self._closed_up_to = jobs[-1].job_id if len(jobs) == _TASKS_CLOSED else ""
        with self._lock:
            running = set(self._running)
        _for_each(
            [job for job in jobs if job.job_id not in running],
            lambda job: lifecycle.end_task(self._context, job),
        )


def _for_each(items: Iterable[T], call: Callable[[T], object]) -> None:
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


class _Duty:
    """Something the loop does now and then."""

    def __init__(self, name: str, every_s: float, call: Callable[[], None]) -> None:
        self.name = name
        self._every_s = every_s
        self._call = call
        self._next = float("-inf")

    def is_due(self) -> bool:
        """Tell whether it is time."""
        return monotonic() >= self._next

    def run(self) -> None:
        """Do it; where it fails it is due again after a second."""
        self._next = monotonic() + _RETRY_DUTY_S
        self._call()
        self._next = monotonic() + self._every_s
