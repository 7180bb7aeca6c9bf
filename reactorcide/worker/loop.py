"""The worker: claims jobs, runs each in a thread of its own, and renews their leases."""

import logging
import random
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from time import monotonic

from reactorcide.domain.errors import InfrastructureError
from reactorcide.domain.jobs import Job, JobStatus, OpenAttempt
from reactorcide.domain.workers import WorkerView
from reactorcide.duties import Duties, Duty
from reactorcide.lib.clock import now_ms
from reactorcide.runner import Runner
from reactorcide.threads import start_thread
from reactorcide.worker.attempt import Attempt, Limits
from reactorcide.worker.background import Background
from reactorcide.worker.disk import DiskWatch
from reactorcide.worker.interrupt import CANCELLED, Reason
from reactorcide.worker.port import Held, WorkerPort
from reactorcide.worker.prepare import Preparation
from reactorcide.worker.recovery import Recovery

log = logging.getLogger("reactorcide.worker")

_MIN_POLL_S = 0.05
_MAX_POLL_S = 1.0
_RECOVER_EVERY_S = 15.0
_RETRY_DUTY_S = 1.0
_ENGINE_FRESH_S = 1.0
"""An engine that answered this recently is not checked again."""
_DRAINING = "the service is about to stop: it waits for the running jobs, and takes no other"
_CLAIMING = ("adopt", "claim")
"""The duties that have to succeed for a job to be claimed."""


class Worker:
    """One thread that claims and supervises, and one thread for each running attempt.

    ``start`` and ``stop`` once each; ``stop`` is idempotent. All other methods may be called from
    any thread.
    """

    def __init__(
        self,
        port: WorkerPort,
        runner: Runner,
        preparation: Preparation,
        limits: Limits,
        *,
        concurrency: int,
        queues: Sequence[str],
        check_disk: Callable[[], None] = lambda: None,
        duties: Sequence[Duty] = (),
    ) -> None:
        """``check_disk`` raises ``InfrastructureError`` if there is no room for another job's output.

        ``duties`` are additional ones for the worker's thread.
        """
        self._port = port
        self._runner = runner
        self._preparation = preparation
        self._limits = limits
        self._concurrency = concurrency
        self._queues = tuple(queues)
        self._check_disk = check_disk
        self._drained: Callable[[], None] | None = None
        self._has_reported_drained = False
        self._claims_no_more = False
        self._lock = threading.Lock()
        self._running: dict[str, Attempt] = {}
        self._threads: set[threading.Thread] = set()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._disk_watch = DiskWatch(self._attempts) if limits.max_disk_bytes else None
        self._engine_seen = float("-inf")
        self._last_seen_ms = now_ms()
        self._poll_s = _MIN_POLL_S
        self._background = Background(runner)
        self._recovery = Recovery(
            port,
            runner,
            self._background,
            running=lambda: frozenset((one.job.job_id, one.job.attempt) for one in self._attempts()),
            adopt=self._adopt,
        )
        self._duties = Duties(
            [
                Duty("adopt", _RECOVER_EVERY_S, self._recovery.run, _RETRY_DUTY_S),
                Duty("renew", port.lease_s / 3, self._renew, _RETRY_DUTY_S),
                *duties,
            ],
            log,
        )
        port.listen(self.wake, self.stop_attempt)

    def start(self) -> None:
        """Start claiming; attempts that an earlier process left are adopted first."""
        self._thread = start_thread(self._loop, "worker")
        self._background.start()
        if self._disk_watch is not None:
            self._disk_watch.start()

    def stop(self, deadline_s: float) -> None:
        """Stop claiming and detach from running containers, which the next start adopts.

        Returns when every thread has ended, or after ``deadline_s``.
        """
        deadline = monotonic() + deadline_s
        with self._lock:
            self._stopping = True
            attempts, threads = list(self._running.values()), list(self._threads)
        self._port.close()
        for attempt in attempts:
            attempt.interrupt.set(Reason.STOPPING)
        self._wake.set()
        if self._thread is not None:
            threads.insert(0, self._thread)
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
            if thread.is_alive():
                log.warning("%s has not ended in time", thread.name)
        self._background.add("remove the warm containers", self._runner.drop_warm)
        self._background.stop(max(0.0, deadline - monotonic()))
        if self._disk_watch is not None:
            self._disk_watch.stop(max(0.0, deadline - monotonic()))

    def drain(self, drained: Callable[[], None]) -> None:
        """Claim no more jobs, and call ``drained``, once, when the last running job has ended."""
        self._drained = drained
        log.info("draining: waiting for the running jobs, taking no other")
        self._poll_soon()

    def wake(self) -> None:
        """Claim at once if there is a free place; when a place becomes free the worker claims anyway.

        So a burst of submissions to a busy worker causes no claims, which would delay them.
        """
        if self._has_place():
            self._poll_soon()

    def stop_attempt(self, job_id: str, why: str = CANCELLED) -> None:
        """Stop the container of a job, if it runs here; ``why`` is a phrase."""
        with self._lock:
            attempt = self._running.get(job_id)
        if attempt is not None:
            attempt.interrupt.set(Reason.CANCELLED, why)

    def check(self) -> None:
        """Raise ``InfrastructureError`` unless the worker runs and claims jobs."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            raise InfrastructureError("the worker does not run; restart the service")
        if self._drained is not None:
            raise InfrastructureError(_DRAINING)

    def view(self) -> WorkerView:
        """Return the state of this worker."""
        with self._lock:
            running = tuple(sorted(self._running))
        return WorkerView(
            worker_id=self._port.worker_id,
            host=socket.gethostname(),
            concurrency=self._concurrency,
            running_job_ids=running,
            last_seen_ms=self._last_seen_ms,
            queues=self._queues,
            warm_containers=self._runner.warm_view().waiting,
            trouble=_DRAINING if self._drained is not None else self._duties.trouble(_CLAIMING),
        )

    # --- the loop ------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            self._last_seen_ms = now_ms()
            self._duties.do_due()
            if self._drained is not None:
                self._end_drained(self._drained)
            # No claims before the attempts of an earlier process have been adopted.
            elif self._recovery.is_done:
                self._duties.guard("claim", self._claim)
                self._background.add("keep containers warm", self._keep_warm)
            self._wake.wait(self._pause_s())

    def _end_drained(self, drained: Callable[[], None]) -> None:
        if not self._claims_no_more:
            self._claims_no_more = self._duties.guard("claim no more", self._port.claim_no_more)
        with self._lock:
            is_drained = not self._running and not self._has_reported_drained
            self._has_reported_drained = self._has_reported_drained or is_drained
        if is_drained:
            log.info("drained: no job is running")
            drained()

    def _poll_soon(self) -> None:
        self._poll_s = _MIN_POLL_S
        self._wake.set()

    def _pause_s(self) -> float:
        """Return how long to wait for a wake-up: growing, and random, so that workers do not poll in step."""
        pause_s = self._poll_s * random.uniform(0.8, 1.2)  # noqa: S311  # not for secrets
        self._poll_s = min(self._poll_s * 2, _MAX_POLL_S)
        return pause_s

    # --- attempts ------------------------------------------------------------------------------

    def _claim(self) -> None:
        """Claim while there are free places and waiting jobs; after a claim, poll again at once."""
        if not self._has_place():
            return
        with closing(self._port.claim(self._queues, self._check_ready)) as claimed:
            for job in claimed:
                self._run(self._attempt(job))
                self._poll_soon()
                if not self._has_place():
                    return

    def _has_place(self) -> bool:
        return len(self._running) < self._concurrency

    def _keep_warm(self) -> None:
        self._runner.keep_warm(self._is_idle)

    def _is_idle(self) -> bool:
        """Return whether there is time and room to prepare for the next jobs."""
        if self._running or self._stopping or self._drained is not None:
            return False
        try:
            self._check_disk()
        except InfrastructureError:
            return False
        return True

    def _check_ready(self) -> None:
        """Raise ``InfrastructureError`` if a claimed job could not be run anyway."""
        self._check_disk()
        start_thread(lambda: None, "probe")
        if monotonic() - self._engine_seen > _ENGINE_FRESH_S:
            self._runner.check()
            self._engine_seen = monotonic()

    def _adopt(self, adopted: OpenAttempt) -> None:
        """Continue an attempt that no worker runs."""
        attempt = self._attempt(adopted.job, adopted)
        if adopted.job.status is JobStatus.CANCELLED:
            attempt.interrupt.set(Reason.CANCELLED)
        self._run(attempt)

    def _attempt(self, job: Job, adopted: OpenAttempt | None = None) -> Attempt:
        return Attempt(
            self._port, self._runner, self._background, self._preparation, self._limits, job, adopted
        )

    def _run(self, attempt: Attempt) -> None:
        job_id = attempt.job.job_id

        def run() -> None:
            try:
                attempt.run()
            finally:
                with self._lock:
                    del self._running[job_id]
                    self._threads.discard(threading.current_thread())
                self._poll_soon()

        with self._lock:
            if self._stopping:
                attempt.interrupt.set(Reason.STOPPING)
            # If this fails, the attempt does not count as running, so that it is adopted later.
            self._threads.add(start_thread(run, f"job-{job_id}"))
            self._running[job_id] = attempt
        # A cancel between the claim and this moment had no attempt to stop.
        if self._port.is_cancelled(attempt.job):
            attempt.interrupt.set(Reason.CANCELLED)

    def _attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._running.values())

    def _renew(self) -> None:
        """Renew the leases of running attempts."""
        self._port.renew([Held(attempt.job, self._lease_s(attempt)) for attempt in self._attempts()])

    def _lease_s(self, attempt: Attempt) -> float:
        if attempt.deadline is None:
            return self._port.lease_s
        # Never past the job's own deadline, so that a worker that hangs loses the task in time.
        remaining_s = attempt.deadline + self._limits.cancel_grace_s - monotonic()
        return max(1.0, min(self._port.lease_s, remaining_s))
