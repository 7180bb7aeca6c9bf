"""Submit a job's definition again, as a new job."""

from reactorcide.domain.accounts import User
from reactorcide.domain.jobs import Job
from reactorcide.domain.projects import ProjectRole
from reactorcide.jobs import JobContext, access
from reactorcide.jobs.submit import submit


def rerun(context: JobContext, user: User, job_id: str) -> Job:
    """Submit a new job with the definition of ``job_id``, which may have any status; see ``submit``.

    Raises ``Conflict`` for a job of a run.
    """
    original = access.get(context, user, job_id, ProjectRole.WRITE)
    access.check_alone(original, "rerun")
    return submit(context, user, original.definition, rerun_of=original.job_id)
