"""The worker: claims tasks, runs their jobs, renews their leases, and sweeps up what was left."""

import json
import logging
import math
import random
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic, time_ns

from reactorcide import crashpoints
from reactorcide.corndogs.task import Task
from reactorcide.domain.clock import now_ms
from reactorcide.domain.errors import (
    IllegalTransition,
    InfrastructureError,
    NotFound,
)
from reactorcide.domain.jobs import JobStatus, OpenAttempt
from reactorcide.domain.workers import WorkerView
from reactorcide.jobs import JobContext, lifecycle
from reactorcide.jobs.submit import hand_over
from reactorcide.runner import Found, Runner
from reactorcide.worker.disk import DiskWatch
from reactorcide.worker.execute import Attempt, Limits
from reactorcide.worker.interrupt import Reason
from reactorcide.worker.prepare import Preparation

log = logging.getLogger("reactorcide.worker")

_SHORTEST_POLL_S = 0.05
_LONGEST_POLL_S = 1.0
_SWEEP_EVERY_S = 1.0
_TIDY_EVERY_S = 5.0
_RECOVER_EVERY_S = 15.0
_ENGINE_FRESH_S = 1.0
"""An engine that has answered this recently is taken to be there."""
_RETRY_DUTY_S = 1.0
_WATCH_LEASES_EVERY_S = 0.5
_DRAINING = "the service is about to stop: it waits for the jobs that run, and takes no other"
_CLAIMING = ("take over", "claim")
"""What has to work for a job to be taken."""
_MOST_FOREIGN_TASKS = 20
_FOREIGN_PAUSE_S = 10.0


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
        lost_after_s: float = math.inf,
        check_disk: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a worker; ``start`` starts it.

        An attempt whose lease was not renewed for ``lost_after_s`` is stopped. ``check_disk`` raises
        ``InfrastructureError`` where there is no room for another job's output.
        """
        self._context = context
        self._runner = runner
        self._preparation = preparation
        self._limits = limits
        self._worker_id = worker_id
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._queues = tuple(queues)
        self._lost_after_s = lost_after_s
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
        self._disk_watch = DiskWatch(self._attempts) if limits.max_disk_bytes else None
        self._trouble: dict[str, str] = {}
        self._engine_seen = float("-inf")
        self._last_seen_ms = now_ms()
        self._poll_s = _SHORTEST_POLL_S
        self._foreign_until: dict[str, float] = {}

    def start(self) -> None:
        """Start claiming; attempts that an earlier process left are taken over first."""
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
        for thread in (self._thread, *self._threads_now()):
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
            _Duty("watch the leases", _WATCH_LEASES_EVERY_S, self._stop_lost),
            _Duty("tidy", min(_TIDY_EVERY_S, self._lease_s / 3), self._tidy),
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
        """Claim while there are free places and waiting jobs; tells whether anything was claimed."""
        claimed = False
        while not self._stopping and len(self._running) < self._concurrency:
            queues = self._waiting_queues()
            if not queues:
                break
            self._check_disk()
            self._check_engine()
            if not any(self._claim_from(queue) for queue in queues):
                break
            claimed = True
            self._poll_s = _SHORTEST_POLL_S
        return claimed

    def _waiting_queues(self) -> list[str]:
        now = monotonic()
        queues = self._context.store.queues_to_poll()
        return [
            queue
            for queue in queues
            if (not self._queues or queue in self._queues) and self._foreign_until.get(queue, 0.0) <= now
        ]

    def _check_engine(self) -> None:
        """Raise ``EngineUnavailable`` where a claimed job could not be run anyway."""
        if monotonic() - self._engine_seen > _ENGINE_FRESH_S:
            self._runner.check()
            self._engine_seen = monotonic()

    def _claim_from(self, queue: str) -> bool:
        """Claim one of our jobs from a queue; tells whether there was a task of ours."""
        foreign: list[Task] = []
        try:
            while len(foreign) < _MOST_FOREIGN_TASKS:
                task = self._context.corndogs.get_next_task(
                    queue, lifecycle.TASK_WAITING, override_timeout_s=round(self._lease_s)
                )
                if task is None:
                    return False
                job_id = self._our_job(task)
                if job_id is not None:
                    self._take(task, job_id)
                    return True
                foreign.append(task)
            return False
        finally:
            for task in foreign:
                self._put_back(task)
            if foreign:
                # They are somebody else's to claim: leave the queue alone for a while.
                self._foreign_until[queue] = monotonic() + _FOREIGN_PAUSE_S

    def _our_job(self, task: Task) -> str | None:
        """Return the job that a task is for; ``None`` for a task of somebody else."""
        try:
            payload = json.loads(task.payload)
            if payload["instance"] == self._context.instance_id and payload["job_type"] == "run":
                return str(payload["job_id"])
        except (ValueError, KeyError, TypeError):
            return None
        return None

    def _put_back(self, task: Task) -> None:
        self._context.corndogs.update_task(
            task.uuid,
            task.queue,
            lifecycle.TASK_CLAIMED,
            new_state=lifecycle.TASK_WAITING,
            auto_target_state=task.current_state,
            timeout_s=-1,
            priority=task.priority,
        )

    def _take(self, task: Task, job_id: str) -> None:
        """Judge a claimed task of ours, and run its job if that waits for it."""
        crashpoints.reached("claim-task-taken")
        try:
            job = self._context.store.get(job_id)
        except NotFound:
            self._complete(task)
            return
        if job.status is JobStatus.RUNNING and job.corndogs_task_id == task.uuid:
            # Its worker is late with renewing, or dead. The task comes back after a lease.
            return
        if job.is_final or (job.corndogs_task_id is not None and job.corndogs_task_id != task.uuid):
            self._complete(task)
            return
        try:
            job = lifecycle.claim(self._context, job_id, task.uuid, self._worker_id)
        except IllegalTransition:
            # Cancelled in this instant.
            self._complete(task)
            return
        crashpoints.reached("claim-row-written")
        self._run(Attempt(self._context, self._runner, self._preparation, self._limits, job, task))

    def _complete(self, task: Task) -> None:
        self._context.corndogs.complete_task(task.uuid, task.queue, task.current_state)
        job_id = self._our_job(task)
        if job_id is not None:
            self._context.store.task_closed(job_id, task.uuid)

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
        if self._context.store.get(job_id).status is JobStatus.CANCELLED:
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
        for left in self._context.store.open_attempts():
            key = (left.job.job_id, left.job.attempt)
            if key not in running:
                self._take_over(left, containers.pop(key, None))
        for key, orphan in containers.items():
            if key not in running:
                log.info("removing a container that no job needs", extra={"job_id": orphan.job_id})
                self._runner.remove(orphan.container_id)
        if not self._recovered:
            # The engine now and then forgets to take one along with its container. Once is enough.
            self._runner.remove_stray_volumes(self._context.instance_id)
        self._recovered = True

    def _take_over(self, left: OpenAttempt, found: Found | None) -> None:
        """Go on with an attempt that nobody runs."""
        job = left.job
        if left.container_id is None and found is not None:
            left = replace(left, container_id=found.container_id)
        task = None
        if job.corndogs_task_id is not None:
            task = self._context.corndogs.get_task(job.corndogs_task_id, job.definition.queue_name)
        log.info("taking over a job that was left running", extra={"job_id": job.job_id})
        attempt = Attempt(
            self._context, self._runner, self._preparation, self._limits, job, task, adopted=left
        )
        if job.status is JobStatus.CANCELLED:
            attempt.interrupt.set(Reason.CANCELLED)
        self._run(attempt)

    def _submit_due(self) -> None:
        """Hand committed jobs to Corndogs that it has not got; stop at the first that it does not take."""
        for job, failures in self._context.store.to_submit(now_ms=now_ms()):
            after = hand_over(self._context, job, failures=failures)
            if after is not None and after.status is JobStatus.SUBMIT_FAILED:
                return

    def _renew(self) -> None:
        """Renew the leases of running attempts."""
        for attempt in self._attempts():
            self._renew_one(attempt)

    def _stamp(self) -> None:
        """Stamp the rows of running attempts."""
        held = [(attempt.job.job_id, attempt.job.attempt) for attempt in self._attempts()]
        if held:
            self._context.store.heartbeat(held, now_ms=now_ms())

    def _attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._running.values())

    def _renew_one(self, attempt: Attempt) -> None:
        asked_at = monotonic()
        timeout_s = self._lease_s
        if attempt.deadline is not None:
            # Never past the job's own end: so a worker that hangs loses the task on time.
            left_s = attempt.deadline + self._limits.cancel_grace_s - monotonic()
            timeout_s = max(1.0, min(timeout_s, left_s))
        with attempt.task_lock:
            task = attempt.task
            if task is None or attempt.task_closed:
                attempt.renewed_at = asked_at
                return
            self._context.corndogs.update_task(
                task.uuid,
                task.queue,
                lifecycle.TASK_CLAIMED,
                new_state=lifecycle.TASK_CLAIMED,
                auto_target_state=lifecycle.TASK_WAITING,
                timeout_s=round(timeout_s),
                priority=task.priority,
            )
            attempt.renewed_at = asked_at

    def _stop_lost(self) -> None:
        """Stop the attempts whose leases have run out for good: somebody else may run them by now."""
        lost_before = monotonic() - self._lost_after_s
        for attempt in self._attempts():
            if attempt.renewed_at < lost_before:
                attempt.interrupt.set(Reason.LOST)

    def _tidy(self) -> None:
        """Close what was left open, and time out the tasks of workers that went away."""
        for job in self._context.store.to_close():
            with self._lock:
                runs_here = job.job_id in self._running
            if not runs_here:
                lifecycle.close_task(self._context, job)
        for queue in self._context.store.active_queues():
            self._context.corndogs.clean_up_timed_out(time_ns(), queue)


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
