"""Deleting a job with its logs and artifacts."""

import contextlib

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import IllegalTransition, ObjectStoreError
from reactorcide.domain.jobs import job_prefix
from reactorcide.domain.projects import ProjectRole
from reactorcide.jobs import JobContext, StoredJobs, access, ending, lifecycle
from reactorcide.lib.clock import now_ms


def delete(context: JobContext, user: User, job_id: str) -> None:
    """Remove a job for its clients at once; one that is active is cancelled first.

    What is left of it goes as soon as its container is gone. Raises ``Conflict`` for a job of a run.
    """
    job = access.get(context, user, job_id, ProjectRole.WRITE)
    access.check_alone(job, "deleted")
    if not job.is_final:
        # It may have just ended by itself.
        with contextlib.suppress(IllegalTransition):
            lifecycle.stop(context, ending.cancelled(context, job, user.actor))
    at_ms = now_ms()
    with context.store.transaction() as tx:
        tx.jobs.delete(job_id, now_ms=at_ms)
        tx.audit.add(AuditEntry(at_ms=at_ms, by=user.actor, action=Action.JOB_DELETE, subject=job_id))
    announce_deleted(context, job_id)
    # Not what else is left to be purged: that may be large.
    purge_ended(context, job_id)


def announce_deleted(context: StoredJobs, job_id: str) -> None:
    """Tell whoever waits for a job that there is none any more, once its tombstone is written."""
    crashpoints.reached("delete-written")
    context.notifier.announce(job_id)


def purge_ended(context: StoredJobs, job_id: str | None = None) -> None:
    """Remove the rows and objects of deleted jobs (or of that one) that nothing runs any more.

    One that cannot be removed stays for the next time and holds up no other; then this raises
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
    """Remove one deleted job for good: objects first, so that no object is left without a row."""
    context.logs.delete(job_prefix(job_id))
    context.objects.delete(job_prefix(job_id))
    context.store.retention.purge(job_id)
