"""Deleting a job with its logs and artifacts."""

import contextlib

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import IllegalTransition, ObjectStoreError
from reactorcide.domain.jobs import Job, job_prefix
from reactorcide.domain.projects import ProjectRole
from reactorcide.jobs import JobContext, StoredJobs, access, ending, lifecycle
from reactorcide.lib.clock import now_ms


def delete(context: JobContext, user: User, job_id: str) -> None:
    """Delete a job for clients at once; an active one is cancelled first.

    Its rows and objects are removed once its container is removed. Raises ``Conflict`` for a job of a run.
    """
    job = access.get(context, user, job_id, ProjectRole.WRITE)
    access.check_alone(job, "deleted")
    if not job.is_final:
        # It may have ended at the same time.
        with contextlib.suppress(IllegalTransition):
            lifecycle.stop(context, ending.cancelled(context, job, user.actor))
    at_ms = now_ms()
    with context.store.transaction() as tx:
        tx.jobs.delete(job_id, now_ms=at_ms)
        tx.audit.add(AuditEntry(at_ms=at_ms, by=user.actor, action=Action.JOB_DELETE, subject=job_id))
    announce_deleted(context, job_id)
    purge_soon(context, job_id)


def announce_deleted(context: StoredJobs, job_id: str) -> None:
    """Announce the deletion of a job to waiting clients, once its tombstone is written."""
    crashpoints.reached("delete-written")
    context.notifier.announce(job_id)


def purge_soon(context: JobContext, job_id: str) -> None:
    """Remove the rows and objects of a deleted job if no worker runs it; a slow bucket holds up nobody.

    What fails is done by the janitor.
    """
    context.sealing.add(
        f"remove job {job_id}", lambda: purge_ended(context, job_id), log_fields={"job_id": job_id}
    )


def purge_ended(context: StoredJobs, job_id: str | None = None) -> None:
    """Remove the rows and objects of deleted jobs (or of one) that no worker runs.

    A job that cannot be removed is retried next time and does not block others; then this raises
    ``ObjectStoreError``. Repeating and concurrent calls are safe, also from other processes.
    """
    problem: ObjectStoreError | None = None
    for job in context.store.retention.to_purge(job_id=job_id):
        try:
            purge(context, job.job_id)
        except ObjectStoreError as exc:
            problem = exc
    if problem is not None:
        raise problem


def purge(context: StoredJobs, job_id: str) -> None:
    """Remove one deleted job for good: objects first, so that no object remains without a row."""
    context.logs.delete(job_prefix(job_id))
    context.objects.delete(job_prefix(job_id))
    context.store.retention.purge(job_id)


def attempt_ended(context: JobContext, job: Job) -> None:
    """Close the task of an attempt that has ended, and remove its job if that was deleted meanwhile.

    Where closing the task fails, the upkeep does it.
    """
    current = lifecycle.attempt_ended(context, job)
    crashpoints.reached("task-closed")
    if current is not None and current.deleted:
        purge_soon(context, job.job_id)
