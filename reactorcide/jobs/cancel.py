"""Cancel a job: the status is stored first, the container stopped afterwards."""

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.errors import Conflict, IllegalTransition
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.domain.projects import ProjectRole
from reactorcide.jobs import JobContext, access, ending, lifecycle


def cancel(context: JobContext, user: User, job_id: str) -> Job:
    """Cancel an active job and return it, ``cancelled``; safe to repeat.

    A waiting job never starts; the worker stops the container of a running one. Raises
    ``Conflict`` if it ended otherwise.
    """
    job = access.get(context, user, job_id, ProjectRole.WRITE)
    if job.status is JobStatus.CANCELLED:
        return job
    try:
        job = ending.cancelled(context, job, user.actor)
    except IllegalTransition as exc:
        current = context.store.jobs.get(job_id)
        if current.status is JobStatus.CANCELLED:
            return current
        raise Conflict(f"the job is already {current.status}, so it cannot be cancelled") from exc
    crashpoints.reached("cancel-written")
    lifecycle.stop(context, job)
    return job
