"""Access control: which jobs a caller may see and change."""

from reactorcide.domain.accounts import User
from reactorcide.domain.errors import Conflict, Forbidden, NotFound
from reactorcide.domain.jobs import Job
from reactorcide.jobs import StoredJobs
from reactorcide.logs.masking import hide_in_own_log


def get(context: StoredJobs, user: User, job_id: str) -> Job:
    """Return a job that ``user`` may see.

    Raises ``NotFound`` where there is none (any more), ``Forbidden`` where it is somebody else's.
    """
    job = context.store.jobs.get(job_id)
    if job.deleted:
        raise NotFound(f"there is no job {job_id}")
    if job.user_id != user.user_id and not user.is_admin:
        raise Forbidden("this job belongs to somebody else")
    hide_in_own_log(job.definition)
    return job


def check_alone(job: Job, done: str) -> None:
    """Raise ``Conflict`` for a job of a run, which is ``done`` as a whole."""
    if job.run_id is not None:
        raise Conflict(
            f"the job belongs to a run, and is not {done} alone: POST /runs/{job.run_id}/rerun repeats the "
            f"run, or what failed in it, and POST /runs/{job.run_id}/cancel ends it"
        )
