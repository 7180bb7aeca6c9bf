"""Giving jobs to workers on other machines, which hold a call for the next one."""

import logging
import secrets
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from time import monotonic

from reactorcide.domain.errors import InfrastructureError, SessionGone
from reactorcide.domain.workers import AttemptLease, Key, LeasedAttempt, RemoteWorker
from reactorcide.jobs import JobContext, adopt
from reactorcide.jobs.claims import Claims
from reactorcide.lib.clock import now_ms
from reactorcide.lib.records import record
from reactorcide.threads import start_thread

log = logging.getLogger("reactorcide.jobs")

_LOOK_EVERY_S = 1.0
_TOKEN_BYTES = 32


@record
class Next:
    """What a worker gets: new attempts, and which of those that it holds are cancelled."""

    assigned: Sequence[LeasedAttempt] = ()
    cancelled: Sequence[Key] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing."""
        return not self.assigned and not self.cancelled


@record(kw_only=True)
class Ask:
    """What a worker says when it asks for the next jobs."""

    session_id: str
    free: int
    held: Collection[Key]
    """The attempts that it has confirmed by naming them."""
    known_cancelled: Collection[Key] = ()
    trouble: str | None = None
    warm_containers: int = 0


@dataclass(eq=False)
class Waiter:
    """A held call of a worker. ``answer`` is set once, and then ``ready`` called, from any thread."""

    worker_id: str
    ask: Ask
    deadline: float
    has_closed: Callable[[], bool]
    ready: Callable[[], None]
    answer: Next | None = field(default=None)


class Dispatcher:
    """Claims jobs for workers on other machines, in one thread, when one of them has a free place.

    A held call costs no thread: its waiter is told when there is an answer. ``start`` once; ``stop`` is
    idempotent. All other methods are thread-safe.
    """

    def __init__(self, context: JobContext, *, lease_s: float) -> None:
        self._context = context
        self._stopping = False
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._waiters: dict[str, Waiter] = {}
        """By the id of the worker, the one that waits longest first."""
        self._claims = Claims(context, lease_s=lease_s, is_stopping=lambda: self._stopping)
        self._next_expiry = 0.0
        self._claiming = threading.Lock()
        """Held while a job is claimed for a call, which then has not been withdrawn."""
        self._thread: threading.Thread | None = None
        context.hints.subscribe(self._hint, self._job_cancelled)

    def start(self) -> None:
        """Start claiming."""
        self._thread = start_thread(self._loop, "dispatcher")

    def stop(self, deadline_s: float) -> None:
        """Answer all held calls, and claim no more."""
        self._stopping = True
        self._wake.set()
        self.release()
        if self._thread is not None:
            self._thread.join(deadline_s)

    def release(self) -> None:
        """Answer all held calls with nothing."""
        with self._lock:
            waiters, self._waiters = list(self._waiters.values()), {}
        for waiter in waiters:
            self._answer(waiter, Next())

    def at_once(self, worker: RemoteWorker, ask: Ask) -> Next:
        """Return what there is for a worker without waiting; raises ``SessionGone``."""
        if worker.session_id != ask.session_id:
            raise SessionGone(
                "this session was replaced by a later one: another process works with this worker's secret"
            )
        self._context.store.workers.seen(
            worker.worker_id,
            ask.session_id,
            trouble=ask.trouble,
            warm_containers=ask.warm_containers,
            now_ms=now_ms(),
        )
        self._withdraw(worker.worker_id)
        leases = self._context.store.leases
        unconfirmed = [item for item in leases.unfinished(worker.worker_id) if item.key not in set(ask.held)]
        if unconfirmed:
            # The worker counts from now on.
            adopt.stamp(self._context, [item.job for item in unconfirmed])
        cancelled = leases.cancelled({job_id for job_id, _ in ask.held})
        news = [key for key in ask.held if key[0] in cancelled and key not in set(ask.known_cancelled)]
        return Next(unconfirmed, news)

    def hold(self, waiter: Waiter) -> None:
        """Hold a call until there is something for it, or until its deadline; it replaces an earlier one."""
        with self._lock:
            before = self._waiters.pop(waiter.worker_id, None)
            if not self._stopping:
                self._waiters[waiter.worker_id] = waiter
        if before is not None:
            self._answer(before, Next())
        if self._stopping:
            self._answer(waiter, Next())
        elif waiter.ask.free:
            self._wake.set()

    def _withdraw(self, worker_id: str) -> None:
        """End an earlier call of a worker; what is claimed for it just now is in the database afterwards."""
        with self._lock:
            before = self._waiters.pop(worker_id, None)
        if before is not None:
            with self._claiming:
                self._answer(before, Next())

    def drop(self, waiter: Waiter) -> None:
        """Forget a call whose client has gone; safe to repeat."""
        with self._lock:
            if self._waiters.get(waiter.worker_id) is waiter:
                del self._waiters[waiter.worker_id]

    # --- the thread ----------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                self._expire()
                self._tell_cancelled()
                self._assign()
            except InfrastructureError as exc:
                log.warning("no jobs are claimed for workers on other machines: %s", exc)
            except Exception:
                log.exception("claiming for workers on other machines failed unexpectedly")
            self._wake.wait(_LOOK_EVERY_S)

    def _expire(self) -> None:
        now = monotonic()
        if now < self._next_expiry:
            # Each call that begins wakes this thread, and there may be a thousand of them.
            return
        self._next_expiry = now + _LOOK_EVERY_S
        with self._lock:
            due = [waiter for waiter in self._waiters.values() if waiter.deadline <= now]
            for waiter in due:
                del self._waiters[waiter.worker_id]
        for waiter in due:
            self._answer(waiter, Next())

    def _tell_cancelled(self) -> None:
        """Answer the calls of workers that hold cancelled attempts, also where no hint has come."""
        with self._lock:
            is_holding = any(waiter.ask.held for waiter in self._waiters.values())
        if not is_holding:
            return
        for job_id in self._context.store.leases.cancelled_running():
            self._job_cancelled(job_id)

    def _assign(self) -> None:
        """Claim a job for each waiting worker with a free place, until none of their queues has one."""
        with self._lock:
            free = [waiter for waiter in self._waiters.values() if waiter.ask.free]
        if not free:
            return
        waiting = self._context.store.queues.to_poll()
        if not waiting:
            return
        workers = {worker.worker_id: worker for worker in self._context.store.workers.all()}
        for waiter in free:
            if self._stopping:
                return
            if waiter.has_closed():
                self.drop(waiter)
                continue
            worker = workers.get(waiter.worker_id)
            if worker is None or worker.is_draining or not any(map(worker.takes, waiting)):
                continue
            self._claim_for(worker, waiter)

    def _claim_for(self, worker: RemoteWorker, waiter: Waiter) -> None:
        with self._claiming:
            with self._lock:
                if self._waiters.get(worker.worker_id) is not waiter:
                    return
            claimed = self._claim(worker)
        if claimed is None:
            return
        leased = self._context.store.leases.find(*claimed)
        with self._lock:
            # The worker may have called again; otherwise its next call repeats it.
            current = self._waiters.pop(worker.worker_id, None)
        if current is not None:
            self._answer(current, Next([] if leased is None else [leased]))

    def _claim(self, worker: RemoteWorker) -> tuple[str, int, str, str] | None:
        """Claim a job for a worker; returns what its attempt is found by."""
        lease = AttemptLease(secrets.token_hex(_TOKEN_BYTES), worker.lost_after_s)
        with closing(
            self._claims.round(worker.worker_id, worker.taken_queues or (), lambda: None, lambda: lease)
        ) as jobs:
            claimed = next(jobs, None)
        if claimed is None:
            return None
        job, _ = claimed
        return job.job_id, job.attempt, worker.worker_id, lease.token

    # --- hints ---------------------------------------------------------------------------------

    def _hint(self) -> None:
        if self._waiters:
            self._wake.set()

    def _job_cancelled(self, job_id: str) -> None:
        told: list[tuple[Waiter, list[Key]]] = []
        with self._lock:
            for waiter in list(self._waiters.values()):
                told_before = set(waiter.ask.known_cancelled)
                keys = [key for key in waiter.ask.held if key[0] == job_id and key not in told_before]
                if keys:
                    del self._waiters[waiter.worker_id]
                    told.append((waiter, keys))
        for waiter, keys in told:
            self._answer(waiter, Next(cancelled=keys))

    @staticmethod
    def _answer(waiter: Waiter, answer: Next) -> None:
        waiter.answer = answer
        waiter.ready()
