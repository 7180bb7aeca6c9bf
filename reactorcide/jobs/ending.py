"""The end of a job: its row, and in the same transaction what follows for its run."""

import logging
from collections.abc import Iterable

from reactorcide import crashpoints
from reactorcide.domain.audit import Action, Actor, AuditEntry
from reactorcide.domain.errors import StoreError
from reactorcide.domain.jobs import ACTIVE, Job, JobStatus, Outcome
from reactorcide.jobs import JobContext, dependents, lifecycle
from reactorcide.jobs.submit import enqueue
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import ANY_JOB
from reactorcide.store import Records

log = logging.getLogger("reactorcide.jobs")


def finish(context: JobContext, job: Job, outcome: Outcome, *, log_truncated: bool = False) -> None:
    """End the job with its attempt; a job that was cancelled meanwhile stays cancelled."""
    lifecycle.seal_log(context, job)
    ended_at_ms = now_ms()
    error = None if outcome.error is None else lifecycle.sentence(job, outcome.error)

    def write(tx: Records) -> tuple[Job | None, list[Job]]:
        if job.run_id is not None:
            tx.runs.lock(job.run_id)
        ended = tx.attempts.end(
            job.job_id,
            job.attempt,
            outcome.status,
            now_ms=ended_at_ms,
            exit_code=outcome.exit_code,
            error=error,
            log_truncated=log_truncated,
            outputs=outcome.outputs,
            job_changes={
                "completed_at_ms": ended_at_ms,
                "exit_code": outcome.exit_code,
                "error": error,
                "artifacts_object_key": outcome.artifacts_object_key,
            },
        )
        return ended, dependents.resolve(tx, job.run_id, now_ms=ended_at_ms) if ended else []

    ended, made = context.store.write(write)
    if ended is None:
        context.notifier.announce(job.job_id)
        return
    lifecycle.changed(context, ended)
    hand_over(context, made)


def cancelled(context: JobContext, job: Job, by: Actor) -> Job:
    """Make an active job ``cancelled``, for good; raises ``IllegalTransition`` if it is not active."""
    at_ms = now_ms()
    with context.store.transaction() as tx:
        if job.run_id is not None:
            tx.runs.lock(job.run_id)
        ended = cancel_row(tx, job.job_id, at_ms=at_ms)
        tx.audit.add(AuditEntry(at_ms=at_ms, by=by, action=Action.JOB_CANCEL, subject=job.job_id))
        made = dependents.resolve(tx, job.run_id, now_ms=at_ms)
    lifecycle.changed(context, ended)
    hand_over(context, made)
    return ended


def cancel_row(tx: Records, job_id: str, *, at_ms: int) -> Job:
    """Write that an active job is cancelled; raises ``IllegalTransition`` if it is not active."""
    return tx.jobs.transition(
        job_id, JobStatus.CANCELLED, now_ms=at_ms, only_from=ACTIVE, completed_at_ms=at_ms, error="cancelled"
    )


def hand_over(context: JobContext, jobs: Iterable[Job]) -> None:
    """Give the queue jobs that a run has committed; what it does not get here, it gets by the sweep."""
    made = list(jobs)
    if made:
        context.notifier.announce(ANY_JOB)
        crashpoints.reached("dependents-committed")
    for job in made:
        try:
            enqueue(context, job, failures=0)
        except StoreError as exc:
            log.warning("it is queued by the sweep: %s", exc, extra={"job_id": job.job_id})
