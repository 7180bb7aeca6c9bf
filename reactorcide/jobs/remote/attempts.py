"""What workers on other machines do with the attempts that are leased to them."""

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from reactorcide.corndogs.task import Task
from reactorcide.domain.errors import (
    AttemptStale,
    CorndogsError,
    IllegalTransition,
    InvalidInput,
    LogConflict,
    LogTaken,
)
from reactorcide.domain.jobs import Job, JobStatus, Outcome, artifacts_prefix
from reactorcide.domain.outputs import Outputs
from reactorcide.domain.workers import Key, LeasedAttempt, RemoteWorker
from reactorcide.jobs import JobContext, adopt, delete, ending, lifecycle, tasks
from reactorcide.jobs.remote.artifacts import StoredArtifacts
from reactorcide.jobs.remote.logs import LogEnds, PieceWriter
from reactorcide.lib.clock import now_ms
from reactorcide.store import Records

log = logging.getLogger("reactorcide.jobs")

COUNTERS = ("retries_used", "preparation_failures", "killed_preparations")

T = TypeVar("T")

_MAX_PREPARATIONS = 2
_MAX_NOT_TAKEN = 20


class LeasedAttempts:
    """The attempts of workers on other machines. Thread-safe; every call may be repeated.

    Raises ``AttemptStale`` if the attempt is not the worker's any more.
    """

    def __init__(
        self, context: JobContext, *, lease_s: float, max_log_bytes: int, artifacts: StoredArtifacts
    ) -> None:
        self._context = context
        self._lease_s = lease_s
        self._max_log_bytes = max_log_bytes
        self._lock = threading.Lock()
        self._open: dict[Key, _Open] = {}
        self.artifacts = artifacts

    def find(self, worker: RemoteWorker, job_id: str, attempt: int, token: str) -> LeasedAttempt:
        """Return an attempt of a worker that has not ended."""
        leased = self._context.store.leases.find(job_id, attempt, worker.worker_id, token)
        if leased is None:
            raise AttemptStale(
                f"attempt {attempt} of job {job_id} is not this worker's any more; its container has to end"
            )
        return leased

    def has_ended(
        self, worker: RemoteWorker, job_id: str, attempt: int, token: str, body: Mapping[str, Any]
    ) -> bool:
        """Return whether a worker repeats how an attempt has ended."""
        return self._context.store.leases.has_ended(job_id, attempt, worker.worker_id, token, _digest(body))

    def renew(self, leased: LeasedAttempt) -> bool:
        """Prolong the lease of an attempt; returns whether its job is cancelled."""
        job = leased.job
        adopt.stamp(self._context, [job])
        task = tasks.claimed_by(job)
        if task is not None:
            with self._alone(leased.key):
                # An end in between has closed the task, which a late renewal would bring back.
                lease = leased.lease
                again = self._context.store.leases.find(*leased.key, leased.attempt.worker_id, lease.token)
                if again is not None:
                    self._lease_task(job.job_id, task)
        return job.status is JobStatus.CANCELLED

    def _lease_task(self, job_id: str, task: Task) -> None:
        try:
            tasks.lease(
                self._context.corndogs, replace(task, current_state=tasks.TASK_CLAIMED), self._lease_s
            )
        except CorndogsError as exc:
            # It is handed out again, and nobody takes it while the attempt runs.
            log.warning("its task is not renewed: %s", exc, extra={"job_id": job_id})

    def handing_over(
        self,
        leased: LeasedAttempt,
        container_id: str,
        *,
        container_started_at: str,
        age_ms: int,
        log_offset: int,
    ) -> None:
        """Record durably that the handover of the command begins."""
        try:
            lifecycle.handing_over(
                self._context,
                leased.job,
                container_id,
                container_started_at=container_started_at,
                at_ms=_time(leased, age_ms),
                log_offset=log_offset,
            )
        except IllegalTransition as exc:
            raise AttemptStale(str(exc)) from exc

    def started(self, leased: LeasedAttempt, *, age_ms: int) -> None:
        """Record that the command runs."""
        lifecycle.started(self._context, leased.job, at_ms=_time(leased, age_ms))

    def put_log(
        self,
        leased: LeasedAttempt,
        ends: LogEnds,
        text: bytes,
        index: bytes,
        *,
        replaces: bool,
    ) -> LogEnds:
        """Append a piece of the log and of its index at ``ends``; returns the ends that are stored.

        With ``replaces`` what follows ``ends`` is cut off before. Raises ``LogConflict`` if the piece does
        not continue what is stored, ``TooLarge`` above the limit of a log.
        """
        with self._alone(leased.key) as opened:
            return self._on_log(
                opened, leased, lambda writer: writer.put(ends, text, index, replaces=replaces)
            )

    def finish(self, leased: LeasedAttempt, body: Mapping[str, Any]) -> None:
        """End the attempt and its job, as the worker reports it; another report than before is stale."""
        job = leased.job
        outcome = Outcome(
            exit_code=body["exit_code"],
            error=body["error"],
            artifacts_object_key=artifacts_prefix(job.job_id, job.attempt) if body["has_artifacts"] else None,
            outputs=_outputs(body["outputs"]),
        )
        with self._ended(leased, body):
            ending.finish(
                self._context,
                job,
                outcome,
                log_truncated=body["log_truncated"],
                first=lambda tx: self._report(tx, leased, body),
            )

    def try_again(self, leased: LeasedAttempt, body: Mapping[str, Any]) -> None:
        """End the attempt, and let the job wait for the next one, as the worker reports it."""
        job = leased.job
        counters = {name: body[name] for name in COUNTERS if body[name] is not None}
        for name, value in counters.items():
            if value != getattr(job, name) + 1:
                raise InvalidInput(f"{name}: it was {getattr(job, name)}, and grows by one", name)
        if counters.get("retries_used", 0) > job.definition.retries:
            raise InvalidInput("retries_used: the job permits no further retry", "retries_used")
        with self._ended(leased, body):
            lifecycle.try_again(
                self._context,
                job,
                body["reason"],
                delay_s=body["delay"],
                exit_code=body["exit_code"],
                log_truncated=body["log_truncated"],
                first=lambda tx: self._report(tx, leased, body),
                counters=counters,
            )

    def lose(self, key: Key, worker_id: str, reason: str, *, was_taken: bool = True) -> None:
        """End an attempt whose worker is gone: after the handover only the job's retries repeat it.

        One that was not ``was_taken`` is left alone if its handover has begun meanwhile.
        """
        with self._alone(key) as opened:
            attempt = self._context.store.attempts.find_open(*key, worker_id)
            if attempt is None:
                # It has ended meanwhile.
                return
            job, handing_over_at_ms = attempt.job, attempt.handing_over_at_ms
            has_begun = handing_over_at_ms is not None
            if has_begun and not was_taken:
                return
            counter = _counter(job, has_begun=has_begun, was_taken=was_taken)

            def still_so(tx: Records) -> None:
                now = tx.attempts.find_open(*key, worker_id)
                if now is None or now.handing_over_at_ms != handing_over_at_ms:
                    raise AttemptStale(f"attempt {job.attempt} of job {job.job_id} goes on")

            opened.close()
            self._forget(key)
            try:
                if counter is None:
                    outcome = Outcome(exit_code=None, error=reason)
                    ending.finish(self._context, job, outcome, first=still_so)
                else:
                    lifecycle.try_again(
                        self._context, job, reason, delay_s=0, counters=counter, first=still_so
                    )
            except AttemptStale as exc:
                log.info("%s", exc, extra={"job_id": job.job_id})
                return
            self.artifacts.forget(key)
            delete.attempt_ended(self._context, job)

    def keep_open(self, keys: Collection[Key]) -> None:
        """Forget the attempts besides these, which have ended at another service."""
        with self._lock:
            ended = [key for key in (*self._open, *self.artifacts.keys()) if key not in keys]
        for key in set(ended):
            if self._context.store.attempts.log_is_closed(*key):
                with self._alone(key) as opened:
                    opened.close()
                    self._forget(key)
                    self.artifacts.forget(key)

    def close(self) -> None:
        """Close all logs; safe to repeat."""
        with self._lock:
            opened, self._open = list(self._open.values()), {}
        for item in opened:
            with item.lock:
                item.close()

    @contextmanager
    def _ended(self, leased: LeasedAttempt, body: Mapping[str, Any]) -> Iterator[None]:
        """End an attempt in the body of the ``with``: its log is closed before, its task afterwards."""
        with self._alone(leased.key) as opened:
            ends = LogEnds(body["log_bytes"], body["index_bytes"])
            self._on_log(opened, leased, lambda writer: writer.check(ends))
            opened.close()
            self._forget(leased.key)
            self.artifacts.forget(leased.key)
            yield
            delete.attempt_ended(self._context, leased.job)

    def _on_log(self, opened: "_Open", leased: LeasedAttempt, work: Callable[[PieceWriter], T]) -> T:
        """Return what ``work`` does with the log, opened anew if another service has written to it."""
        is_fresh = opened.is_idle
        try:
            return work(opened.writer(self._context, leased, self._max_log_bytes))
        except (LogTaken, LogConflict):
            if is_fresh:
                raise
        opened.close()
        return work(opened.writer(self._context, leased, self._max_log_bytes))

    def _report(self, tx: Records, leased: LeasedAttempt, body: Mapping[str, Any]) -> None:
        if not tx.leases.report_end(*leased.key, leased.lease.token, _digest(body)):
            raise AttemptStale(
                f"attempt {leased.job.attempt} of job {leased.job.job_id} has ended in another way"
            )

    @contextmanager
    def _alone(self, key: Key) -> Iterator["_Open"]:
        """Let one thread at a time work on an attempt's log and its end."""
        while True:
            with self._lock:
                opened = self._open.setdefault(key, _Open())
            with opened.lock:
                if self._open.get(key) is not opened:
                    # It ended while this thread waited.
                    continue
                try:
                    yield opened
                finally:
                    if opened.is_idle:
                        self._forget(key)
                return

    def _forget(self, key: Key) -> None:
        with self._lock:
            self._open.pop(key, None)


class _Open:
    """The lock of an attempt, and its log while that is written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._writer: PieceWriter | None = None

    @property
    def is_idle(self) -> bool:
        """Return whether no log is open."""
        return self._writer is None

    def writer(self, context: JobContext, leased: LeasedAttempt, max_bytes: int) -> PieceWriter:
        """Return what writes the log, opened if it is not open yet."""
        if self._writer is None:
            self._writer = PieceWriter(context.logs, context.notifier, *leased.key, max_bytes=max_bytes)
        return self._writer

    def close(self) -> None:
        """Make the log durable and close it; safe to repeat."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _counter(job: Job, *, has_begun: bool, was_taken: bool) -> dict[str, int] | None:
    """Return the counter of the job that grows with another attempt; ``None`` if there must not be one."""
    name, most = "preparation_failures", _MAX_PREPARATIONS
    if has_begun:
        name, most = "retries_used", job.definition.retries
    elif not was_taken:
        name, most = "killed_preparations", _MAX_NOT_TAKEN
    used: int = getattr(job, name)
    return {name: used + 1} if job.status is JobStatus.RUNNING and used < most else None


def _time(leased: LeasedAttempt, age_ms: int) -> int:
    """Return when something happened at the worker: what is of an attempt comes after its claim."""
    return max(leased.claimed_at_ms, now_ms() - age_ms)


def _digest(body: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()


def _outputs(data: Mapping[str, Any] | None) -> Outputs | None:
    return None if data is None else Outputs(values=data["values"], variables=data["variables"])
