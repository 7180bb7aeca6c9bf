"""Pin a job: retention does not remove it."""

from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.jobs import Job
from reactorcide.domain.projects import ProjectRole
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.clock import now_ms


def pin(context: StoredJobs, user: User, job_id: str, *, pinned: bool) -> Job:
    """Pin or unpin a job of any status, and return it; safe to repeat.

    Raises ``Conflict`` for a job of a run.
    """
    job = access.get(context, user, job_id, ProjectRole.WRITE)
    access.check_alone(job, "pinned" if pinned else "unpinned")
    if job.pinned is pinned:
        return job
    action = Action.JOB_PIN if pinned else Action.JOB_UNPIN
    with context.store.transaction() as tx:
        job = tx.jobs.pin(job_id, pinned)
        tx.audit.add(AuditEntry(at_ms=now_ms(), by=user.actor, action=action, subject=job_id))
    return job
