"""Ending a job: its row and, in the same transaction, the effects on its run."""

import logging
from collections.abc import Callable

from reactorcide import crashpoints
from reactorcide.domain.audit import Action, Actor, AuditEntry
from reactorcide.domain.errors import StoreError
from reactorcide.domain.jobs import Job, Outcome
from reactorcide.jobs import JobContext, dependents, lifecycle
from reactorcide.jobs.dependents import Followed
from reactorcide.jobs.submit import enqueue
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import ANY_JOB, OUTBOX
from reactorcide.store import Records

log = logging.getLogger("reactorcide.jobs")


def finish(
    context: JobContext,
    job: Job,
    outcome: Outcome,
    *,
    log_truncated: bool = False,
    first: Callable[[Records], None] = lambda tx: None,
) -> None:
    """End the job with its attempt; a job that was cancelled meanwhile stays cancelled.

    ``first`` is part of the same transaction.
    """
    ended_at_ms = now_ms()
    error = None if outcome.error is None else lifecycle.sentence(job, outcome.error)

    def write(tx: Records) -> tuple[Job | None, Followed]:
        if job.run_id is not None:
            tx.runs.lock(job.run_id)
        first(tx)
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
        return ended, dependents.resolve(tx, job.run_id if ended else None, now_ms=ended_at_ms)

    ended, followed = context.store.write(write)
    context.sealing.soon(job.job_id, job.attempt)
    if ended is None:
        context.notifier.announce(job.job_id)
        return
    lifecycle.changed(context, ended)
    after_commit(context, followed)


def cancelled(context: JobContext, job: Job, by: Actor) -> Job:
    """Make an active job ``cancelled``, for good; raises ``IllegalTransition`` if it is not active."""
    at_ms = now_ms()
    with context.store.transaction() as tx:
        if job.run_id is not None:
            tx.runs.lock(job.run_id)
        ended = dependents.cancel_row(tx, job.job_id, at_ms=at_ms)
        tx.audit.add(AuditEntry(at_ms=at_ms, by=by, action=Action.JOB_CANCEL, subject=job.job_id))
        followed = dependents.resolve(tx, job.run_id, now_ms=at_ms)
    lifecycle.changed(context, ended)
    after_commit(context, followed)
    return ended


def after_commit(context: JobContext, followed: Followed) -> None:
    """After the commit of a change, stop the jobs that it cancelled, and enqueue those that it created.

    If this fails, the sweep repeats it.
    """
    if followed.owes:
        context.notifier.announce(OUTBOX)
    if followed.ended:
        crashpoints.reached("dependents-cancelled")
    for job in followed.ended:
        lifecycle.changed(context, job)
        lifecycle.stop(context, job)
    if followed.created:
        context.notifier.announce(ANY_JOB)
        crashpoints.reached("dependents-committed")
    for job in followed.created:
        try:
            enqueue(context, job, failures=0)
        except StoreError as exc:
            log.warning("the sweep will queue it: %s", exc, extra={"job_id": job.job_id})
