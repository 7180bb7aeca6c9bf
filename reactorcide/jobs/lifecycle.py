"""Status changes of a job: each is guarded in the store, then logged, counted and announced."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from reactorcide.domain.errors import CorndogsError, IllegalTransition
from reactorcide.domain.jobs import Job, JobStatus, allowed_from
from reactorcide.domain.secrets import secrets_of
from reactorcide.domain.workers import AttemptLease
from reactorcide.jobs import JobContext, tasks
from reactorcide.jobs.tasks import TASK_CLAIMED, TASK_WAITING
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import ANY_JOB
from reactorcide.logs.masking import masked
from reactorcide.store import Records

log = logging.getLogger("reactorcide.jobs")

_MAX_ERROR_CHARS = 4000
"""Maximum length of an error, which may come from git, an engine or a registry."""


def claim(
    context: JobContext,
    job_id: str,
    task_id: str,
    worker_id: str,
    lease: AttemptLease | None = None,
    *,
    lost_after_s: float | None = None,
) -> Job:
    """Decide that ``worker_id`` runs the next attempt of a waiting job. This is the fence.

    ``lease`` is for a worker on another machine, ``lost_after_s`` for that of one of several services.
    Raises ``IllegalTransition`` if the job does not wait.
    """
    job = context.store.attempts.create(
        job_id, task_id, worker_id, now_ms=now_ms(), lease=lease, lost_after_s=lost_after_s
    )
    changed(context, job)
    return job


def handing_over(
    context: JobContext,
    job: Job,
    container_id: str,
    *,
    container_started_at: str,
    at_ms: int,
    log_offset: int,
) -> None:
    """Record that the handover of the attempt's command begins; see ``Attempts.begin_hand_over``."""
    context.store.attempts.begin_hand_over(
        job.job_id,
        job.attempt,
        container_id,
        container_started_at=container_started_at,
        now_ms=at_ms,
        log_offset=log_offset,
    )


def started(context: JobContext, job: Job, *, at_ms: int) -> None:
    """Record that the command of the job's attempt runs."""

    def write(tx: Records) -> None:
        tx.attempts.start(job.job_id, job.attempt, now_ms=at_ms)
        services = (job.definition.services or {}).values()
        for image in {job.definition.runner_image, *(service.image for service in services)}:
            tx.images.used(image, now_ms=at_ms)

    context.store.write(write)
    context.metrics.observe_job_wait(job.definition.queue_name, (at_ms - job.created_at_ms) / 1000)


def try_again(
    context: JobContext,
    job: Job,
    reason: str,
    *,
    delay_s: float,
    exit_code: int | None = None,
    log_truncated: bool = False,
    counters: Mapping[str, int] = MappingProxyType({}),
    first: Callable[[Records], None] = lambda tx: None,
) -> None:
    """End the job's attempt; the next one is submitted after ``delay_s``.

    ``counters`` are the new values of columns that this attempt increased: ``retries_used``,
    ``preparation_failures`` or ``killed_preparations``. ``first`` is part of the same transaction.
    """
    ended_at_ms = now_ms()

    def write(tx: Records) -> Job | None:
        first(tx)
        return tx.attempts.end(
            job.job_id,
            job.attempt,
            JobStatus.SUBMITTED,
            now_ms=ended_at_ms,
            exit_code=exit_code,
            error=sentence(job, reason),
            log_truncated=log_truncated,
            job_changes={
                **counters,
                "attempt": job.attempt + 1,
                "tests": None,
                "worker_id": None,
                "started_at_ms": None,
                "queued_at_ms": None,
                "next_submit_at_ms": ended_at_ms + round(delay_s * 1000),
            },
        )

    waiting = context.store.write(write)
    context.sealing.soon(job.job_id, job.attempt)
    if waiting is None:
        context.notifier.announce(job.job_id)
        return
    changed(context, waiting)


def queued(context: JobContext, job_id: str, task_id: str) -> Job | None:
    """Record that Corndogs has the job; ``None`` if a worker or a cancel was faster."""
    at_ms = now_ms()
    try:
        job = context.store.jobs.transition(
            job_id,
            JobStatus.QUEUED,
            now_ms=at_ms,
            only_from=allowed_from(JobStatus.QUEUED),
            corndogs_task_id=task_id,
            task_open=True,
            queued_at_ms=at_ms,
            submit_failures=0,
            error=None,
        )
    except IllegalTransition:
        return None
    changed(context, job)
    return job


def task_lost(context: JobContext, job: Job) -> Job | None:
    """Submit a queued job again, because Corndogs has lost its task.

    ``None`` if the job's status has changed meanwhile. Safe to repeat.
    """
    lost = context.store.tasks.forget(
        job.job_id,
        job.corndogs_task_id or "",
        "the queue has lost its task, so it is queued again",
        now_ms=now_ms(),
    )
    if lost is not None:
        changed(context, lost)
    return lost


def submit_failed(
    context: JobContext, job_id: str, reason: str, *, failures: int, delay_s: float
) -> Job | None:
    """Record that submitting the job to Corndogs failed; it is retried after ``delay_s``."""
    at_ms = now_ms()
    try:
        job = context.store.jobs.transition(
            job_id,
            JobStatus.SUBMIT_FAILED,
            now_ms=at_ms,
            only_from={JobStatus.SUBMITTED, JobStatus.SUBMIT_FAILED},
            error=reason,
            submit_failures=failures,
            next_submit_at_ms=at_ms + round(delay_s * 1000),
        )
    except IllegalTransition:
        return None
    changed(context, job)
    return job


def is_cancelled(context: JobContext, job_id: str) -> bool:
    """Return whether the job is cancelled; false for a removed job."""
    job = context.store.jobs.find(job_id)
    return job is not None and job.status is JobStatus.CANCELLED


def attempt_ended(context: JobContext, job: Job) -> Job | None:
    """Close the task of an attempt that has ended; returns the current job, ``None`` if it was removed.

    ``job`` is the job during the attempt: by now it may be queued again, with another task.
    """
    current = context.store.jobs.find(job.job_id)
    if current is not None:
        close_task(context, replace(current, corndogs_task_id=job.corndogs_task_id))
    return current


def close_task(context: JobContext, job: Job) -> None:
    """Close the job's task in Corndogs; if that fails, the sweep retries it."""
    try:
        end_task(context, job)
    except CorndogsError as exc:
        log.warning("its task stays open for now: %s", exc, extra={"job_id": job.job_id})


def stop(context: JobContext, job: Job) -> None:
    """Stop the container of a cancelled job, or close its task if it has no container."""
    if job.worker_id is None:
        close_task(context, job)
    else:
        # Its worker closes the task once the container is removed.
        context.hints.job_cancelled(job.job_id)


def end_task(context: JobContext, job: Job) -> None:
    """Close the job's task in Corndogs, and record that. Raises ``CorndogsError``."""
    task_id = job.corndogs_task_id
    if task_id is None:
        return
    cancelled = job.status is JobStatus.CANCELLED
    waits = cancelled and job.started_at_ms is None
    tasks.end(
        context.corndogs,
        task_id,
        job.definition.queue_name,
        TASK_WAITING if waits else TASK_CLAIMED,
        cancelled=cancelled,
    )
    context.store.tasks.closed(job.job_id, task_id)


def sentence(job: Job, text: str) -> str:
    """Return the reason why an attempt ended, without secrets and cut to a readable length."""
    return masked(text, secrets_of(job.definition))[:_MAX_ERROR_CHARS]


def changed(context: JobContext, job: Job) -> None:
    """Log, count and announce a status change that is committed."""
    log.info(
        "job is %s",
        job.status,
        extra={
            "job_id": job.job_id,
            "status": job.status,
            "attempt": job.attempt,
            "queue": job.definition.queue_name,
            **({"reason": job.error} if job.error else {}),
        },
    )
    if job.is_final:
        run_s = None
        if job.started_at_ms is not None and job.completed_at_ms is not None:
            run_s = (job.completed_at_ms - job.started_at_ms) / 1000
        context.metrics.observe_job_end(job.definition.queue_name, job.status, run_s)
    context.notifier.announce(job.job_id)
    if job.run_id is not None:
        context.notifier.announce(job.run_id)
    context.notifier.announce(ANY_JOB)
