"""The port of a worker that runs in the process of its service."""

import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from reactorcide import crashpoints
from reactorcide.corndogs.task import Task
from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.caches import CacheAnswer, CacheSpec, Check, ExpectedCache
from reactorcide.domain.errors import StoreError
from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.jobs import Job, OpenAttempt, Outcome, artifacts_prefix, service_log_key
from reactorcide.domain.reports import JobReport
from reactorcide.domain.runs import RunFiles
from reactorcide.domain.secrets import secrets_of
from reactorcide.duties import Duty
from reactorcide.jobs import (
    JobContext,
    adopt,
    caches,
    delete,
    ending,
    git_access,
    images,
    lifecycle,
    needs,
    read,
    reports,
    sources,
    tasks,
)
from reactorcide.jobs.claims import Claims
from reactorcide.jobs.remote.lost import LostAttempts
from reactorcide.jobs.upkeep import QueueUpkeep, for_each
from reactorcide.lib.clock import boottime
from reactorcide.lib.records import record
from reactorcide.lib.tar import Entry
from reactorcide.logs.writer import LogWriter
from reactorcide.runs.upkeep import RunUpkeep
from reactorcide.worker.port import Cancelled, Held, Unfinished

_SUBMIT_EVERY_S = 1.0
_CHECK_TASKS_EVERY_S = 2.0
_CLOSE_EVERY_S = 5.0
_RESOLVE_RUNS_EVERY_S = 5.0
_LOOK_FOR_LOST_EVERY_S = 5.0
_RETRY_S = 1.0


@record(kw_only=True)
class Shared:
    """What the worker of one of several services on a database knows of them."""

    service_id: Callable[[], str]
    """What tells this service from the others."""
    has_others: Callable[[], bool]
    """Whether there are others just now."""
    lost_after_s: float
    """How long this service's attempts go on without the database, before the others repeat them."""

    @property
    def worker_id(self) -> str:
        """The id of the worker of this service, the same after a restart."""
        return f"embedded-{self.service_id()}"


class LocalPort:
    """See ``WorkerPort``; everything is done at once, by the use cases."""

    def __init__(
        self,
        context: JobContext,
        *,
        lease_s: float,
        worker_id: str | None = None,
        shared: Shared | None = None,
    ) -> None:
        """``worker_id`` is by default that of the installation's own worker, or of this one of several."""
        self._context = context
        self._lease_s = lease_s
        self._worker_id = worker_id
        self._shared = shared
        self._cancelled: Cancelled = _ignored
        self._closed = False
        self._claims = Claims(
            context,
            lease_s=lease_s,
            is_stopping=lambda: self._closed,
            lost_after_s=None if shared is None else shared.lost_after_s,
        )
        self._leases: dict[tuple[str, int], _Lease] = {}

    @property
    def worker_id(self) -> str:
        """See ``WorkerPort.worker_id``."""
        # Not of the host's name: a container has another one after each start.
        if self._shared is not None:
            return self._shared.worker_id
        return self._worker_id or f"embedded-{self._context.instance_id[-8:]}"

    @property
    def instance_id(self) -> str:
        """See ``WorkerPort.instance_id``; containers of other services on one engine have another."""
        instance_id = self._context.instance_id
        return instance_id if self._shared is None else f"{instance_id}.{self.worker_id}"

    @property
    def engine(self) -> str:
        """What tells the engine of this service from those of others on the database."""
        return "" if self._shared is None else self.worker_id

    @property
    def lease_s(self) -> float:
        """See ``WorkerPort.lease_s``."""
        return self._lease_s

    def listen(self, wake: Callable[[], None], cancelled: Cancelled) -> None:
        """See ``WorkerPort.listen``."""
        self._cancelled = cancelled
        self._context.hints.subscribe(wake, cancelled)

    def close(self) -> None:
        """See ``WorkerPort.close``."""
        self._closed = True

    # --- which attempts are this worker's ------------------------------------------------------

    def claim_no_more(self) -> None:
        """See ``WorkerPort.claim_no_more``: jobs are claimed only when ``claim`` is called."""

    def claim(self, queues: Sequence[str], check_ready: Callable[[], None]) -> Generator[Job, None, None]:
        """See ``WorkerPort.claim``."""
        with closing(self._claims.round(self.worker_id, queues, check_ready)) as claimed:
            for job, task in claimed:
                self._leases[job.job_id, job.attempt] = _Lease(self._context, task, self._now())
                yield job

    def renew(self, held: Collection[Held]) -> None:
        """See ``WorkerPort.renew``."""
        if not held:
            return
        self._stamp(held)
        for item in held:
            if self.is_cancelled(item.job):
                self._cancelled(item.job.job_id)
        for_each(held, self._renew_one)

    def is_cancelled(self, job: Job) -> bool:
        """See ``WorkerPort.is_cancelled``."""
        return lifecycle.is_cancelled(self._context, job.job_id)

    def unfinished(self) -> Unfinished:
        """See ``WorkerPort.unfinished``."""
        # Those of lost services are ended, and not adopted: their containers are elsewhere.
        lease_s = self._lease_s if self._shared is None else None
        ours, others = adopt.unfinished(self._context, self.worker_id, lease_s=lease_s)
        named = frozenset(item.container_id for item in (*ours, *others) if item.container_id is not None)
        return Unfinished(ours, frozenset((item.job.job_id, item.job.attempt) for item in others), named)

    def adopt(self, attempt: OpenAttempt) -> bool:
        """See ``WorkerPort.adopt``."""
        if not adopt.adopt(self._context, attempt, self.worker_id):
            return False
        # Its task is not asked for: a queue that is away keeps nobody from looking after what runs.
        task = tasks.claimed_by(attempt.job)
        self._leases[attempt.job.job_id, attempt.job.attempt] = _Lease(self._context, task, self._now())
        return True

    def adopted(self) -> None:
        """See ``WorkerPort.adopted``."""

    def _stamp(self, held: Collection[Held]) -> None:
        """Write the heartbeat of attempts, and have those end that other services may have given up."""
        sent_at = self._now()
        try:
            adopt.stamp(self._context, [item.job for item in held])
            keys = [(item.job.job_id, item.job.attempt) for item in held]
            stale = adopt.ended_elsewhere(self._context, self.worker_id, keys) if self._shared else set()
        except StoreError:
            if self._shared is not None and self._shared.has_others():
                self._end_overdue(held, self._shared.lost_after_s)
            raise
        for key in keys:
            # Without one it has ended here.
            lease = self._leases.get(key)
            if lease is None:
                continue
            lease.renewed_at = sent_at
            if key in stale:
                self._cancelled(key[0], "another service has given up this attempt")

    def _now(self) -> float:
        """Return when the database was reached, where that counts."""
        return 0.0 if self._shared is None else boottime()

    def _end_overdue(self, held: Collection[Held], lost_after_s: float) -> None:
        for item in held:
            lease = self._leases.get((item.job.job_id, item.job.attempt))
            if lease is not None and self._now() - lease.renewed_at > lost_after_s:
                why = f"the database was not reached for more than {lost_after_s:g} s (--lost-after)"
                self._cancelled(item.job.job_id, why)

    def _renew_one(self, held: Held) -> None:
        lease = self._leases.get((held.job.job_id, held.job.attempt))
        if lease is not None:
            lease.renew(held.lease_s)

    # --- what happens to an attempt ------------------------------------------------------------

    def source(self, job: Job) -> Iterator[Entry] | None:
        """See ``WorkerPort.source``."""
        return sources.entries(self._context, job.definition)

    def is_trusted(self, job: Job) -> bool:
        """See ``WorkerPort.is_trusted``."""
        return job.run_id is None or self._context.store.runs.get(job.run_id).is_trusted

    def git_access(self, job: Job) -> GitAccess | None:
        """See ``WorkerPort.git_access``."""
        return git_access.of_job(self._context, job)

    def run_files(self, job: Job) -> RunFiles | None:
        """See ``WorkerPort.run_files``."""
        return needs.run_files(self._context, job)

    def caches(self, job: Job) -> tuple[CacheSpec, ...]:
        """See ``WorkerPort.caches``."""
        return caches.of_job(self._context, job)

    def find_cache(self, job: Job, spec: CacheSpec, key: str, check: Check) -> CacheAnswer:
        """See ``WorkerPort.find_cache``."""
        return caches.find(self._context, job, spec, key, check)

    def drop_cache(self, job: Job, cache_id: str) -> None:
        """See ``WorkerPort.drop_cache``."""
        caches.drop(self._context, cache_id)

    def expect_caches(self, job: Job, expected: Sequence[ExpectedCache]) -> bool:
        """See ``WorkerPort.expect_caches``."""
        return caches.expect(self._context, job, expected)

    def expected_caches(self, job: Job) -> list[ExpectedCache]:
        """See ``WorkerPort.expected_caches``."""
        return caches.expected(self._context, job)

    def put_cache(
        self, job: Job, item: ExpectedCache, chunks: Iterable[bytes], *, max_bytes: int
    ) -> int | None:
        """See ``WorkerPort.put_cache``."""
        return caches.add(self._context, job, item, chunks, max_bytes=max_bytes)

    def image_pulled(self, image: str, image_id: str) -> None:
        """See ``WorkerPort.image_pulled``."""
        images.pulled(self._context, image, image_id, engine=self.engine)

    def open_log(self, job: Job, *, max_bytes: int) -> LogWriter:
        """See ``WorkerPort.open_log``."""
        return LogWriter(
            self._context.logs,
            self._context.notifier,
            job.job_id,
            job.attempt,
            secrets=secrets_of(job.definition),
            max_bytes=max_bytes,
        )

    def handing_over(
        self, job: Job, container_id: str, *, container_started_at: str, at_ms: int, log_offset: int
    ) -> None:
        """See ``WorkerPort.handing_over``."""
        lifecycle.handing_over(
            self._context,
            job,
            container_id,
            container_started_at=container_started_at,
            at_ms=at_ms,
            log_offset=log_offset,
        )

    def started(self, job: Job, *, at_ms: int) -> None:
        """See ``WorkerPort.started``."""
        lifecycle.started(self._context, job, at_ms=at_ms)

    def put_artifact(self, job: Job, path: str, chunks: Iterable[bytes]) -> int:
        """See ``WorkerPort.put_artifact``."""
        return self._context.objects.put(artifacts_prefix(job.job_id, job.attempt) + path, chunks)

    def copy_artifact(self, job: Job, path: str, new_path: str) -> None:
        """See ``WorkerPort.copy_artifact``."""
        prefix = artifacts_prefix(job.job_id, job.attempt)
        self._context.objects.put(prefix + new_path, self._context.objects.read(prefix + path))

    def drop_artifacts(self, job: Job) -> None:
        """See ``WorkerPort.drop_artifacts``."""
        self._context.objects.delete(artifacts_prefix(job.job_id, job.attempt))

    def put_report(self, job: Job, report: JobReport) -> None:
        """See ``WorkerPort.put_report``."""
        reports.save(self._context, job, report)

    def put_service_log(self, job: Job, service: str, data: bytes) -> None:
        """See ``WorkerPort.put_service_log``."""
        self._context.objects.put(service_log_key(job.job_id, job.attempt, service), [data])

    def list_artifacts(self, job: Job, artifacts: Sequence[Artifact], *, truncated: bool) -> str:
        """See ``WorkerPort.list_artifacts``."""
        read.save_artifact_listing(self._context, job, artifacts, truncated=truncated)
        return artifacts_prefix(job.job_id, job.attempt)

    def finish(self, job: Job, outcome: Outcome, *, log_truncated: bool) -> None:
        """See ``WorkerPort.finish``."""
        ending.finish(self._context, job, outcome, log_truncated=log_truncated)
        crashpoints.reached("finish-written")
        self._close(job)

    def try_again(
        self,
        job: Job,
        reason: str,
        *,
        delay_s: float,
        exit_code: int | None = None,
        log_truncated: bool = False,
        **counters: int,
    ) -> None:
        """See ``WorkerPort.try_again``."""
        lifecycle.try_again(
            self._context,
            job,
            reason,
            delay_s=delay_s,
            exit_code=exit_code,
            log_truncated=log_truncated,
            counters=counters,
        )
        crashpoints.reached("retry-written")
        self._close(job)

    def _close(self, job: Job) -> None:
        """Close the task of an attempt that has ended; where that fails, the upkeep does it."""
        lease = self._leases.pop((job.job_id, job.attempt), None)
        if lease is not None:
            lease.end()
        delete.attempt_ended(self._context, job)


def _ignored(job_id: str, why: str = "", /) -> None:
    """Nobody listens yet."""


def queue_duties(upkeep: QueueUpkeep) -> list[Duty]:
    """Return the duties of whoever keeps the queue and the jobs in step."""
    close_every_s = min(_CLOSE_EVERY_S, upkeep.lease_s / 3)
    return [
        Duty("submit", _SUBMIT_EVERY_S, upkeep.submit_due, _RETRY_S),
        Duty("check tasks", _CHECK_TASKS_EVERY_S, upkeep.check_tasks, _RETRY_S),
        Duty("close tasks", close_every_s, upkeep.close_tasks, _RETRY_S),
        Duty("time out tasks", close_every_s, upkeep.time_out_tasks, _RETRY_S),
    ]


def lost_duties(lost: LostAttempts) -> list[Duty]:
    """Return the duties of whoever ends the attempts of lost workers on other machines."""
    return [Duty("end lost attempts", _LOOK_FOR_LOST_EVERY_S, lost.look, _RETRY_S)]


def run_duties(upkeep: RunUpkeep) -> list[Duty]:
    """Return the duties of whoever keeps runs going."""
    return [Duty("resolve runs", _RESOLVE_RUNS_EVERY_S, upkeep.resolve_open, _RETRY_S)]


class _Lease:
    """The lease of an attempt's task. Thread-safe.

    ``task`` is ``None`` if the job's row names none; then there is nothing to renew.
    """

    def __init__(self, context: JobContext, task: Task | None, renewed_at: float) -> None:
        self._context = context
        self._task = task
        self.renewed_at = renewed_at
        # A renewal that comes late would bring a closed task back.
        self._lock = threading.Lock()

    def renew(self, timeout_s: float) -> None:
        """Have the task come back by itself only after ``timeout_s`` from now; raises ``CorndogsError``."""
        with self._lock:
            if self._task is not None:
                held = replace(self._task, current_state=tasks.TASK_CLAIMED)
                tasks.lease(self._context.corndogs, held, timeout_s)

    def end(self) -> None:
        """Renew it no more."""
        with self._lock:
            self._task = None
