"""Pinning a job: it is kept until somebody deletes it."""

from reactorcide.domain.accounts import User
from reactorcide.domain.jobs import Job
from reactorcide.jobs import JobContext, access


def pin(context: JobContext, user: User, job_id: str, *, pinned: bool) -> Job:
    """Pin a job, whatever its status, or take its pin away, and return it; again is fine."""
    access.get(context, user, job_id)
    return context.store.pin(job_id, pinned)
