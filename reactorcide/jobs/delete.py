"""Deleting a job with its logs and artifacts."""

import contextlib

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, Deed
from reactorcide.domain.clock import now_ms
from reactorcide.domain.errors import IllegalTransition
from reactorcide.domain.jobs import Job
from reactorcide.jobs import JobContext, access, cancel, lifecycle


def delete(context: JobContext, user: User, job_id: str) -> None:
    """Remove a job for its clients at once; one that is active is cancelled first.

    What is left of it goes as soon as its container is gone.
    """
    job = access.get(context, user, job_id)
    if not job.is_final:
        # It may have just ended by itself.
        with contextlib.suppress(IllegalTransition):
            cancel.carry_out(context, lifecycle.cancelled(context, job_id, user.actor))
    at_ms = now_ms()
    deed = Deed(at_ms=at_ms, by=user.actor, action=Action.JOB_DELETE, subject=job_id)
    context.store.mark_deleted(job_id, now_ms=at_ms, deed=deed)
    crashpoints.reached("delete-written")
    context.signals.announce(job_id)
    purge_ended(context)


def purge_ended(context: JobContext) -> None:
    """Remove the rows and objects of deleted jobs that nothing runs any more."""
    for job in context.store.to_purge():
        purge(context, job)


def purge(context: JobContext, job: Job) -> None:
    """Remove one deleted job for good: objects first, so that no object is left without a row."""
    context.objects.delete(f"jobs/{job.job_id}/")
    context.store.purge(job.job_id)
