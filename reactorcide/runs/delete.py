"""Delete a run with its jobs, their logs and artifacts."""

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict
from reactorcide.domain.projects import ProjectRole
from reactorcide.jobs.delete import announce_deleted, purge_soon
from reactorcide.lib.clock import now_ms
from reactorcide.runs import RunContext, access


def delete(context: RunContext, user: User, run_id: str) -> None:
    """Delete an ended run, and all its jobs, for clients at once.

    A job's rows and objects are removed once its container is removed. Raises ``Conflict`` if the run is
    unfinished.
    """
    access.get(context, user, run_id, ProjectRole.WRITE)
    at_ms = now_ms()
    with context.jobs.store.transaction() as tx:
        run = tx.runs.lock(run_id)
        if run is not None and not run.is_final:
            raise Conflict("the run has not ended, so it cannot be deleted; cancel it first")
        job_ids = tx.runs.jobs(run_id)
        for job_id in job_ids:
            tx.jobs.delete(job_id, now_ms=at_ms)
        tx.runs.delete(run_id)
        tx.audit.add(AuditEntry(at_ms=at_ms, by=user.actor, action=Action.RUN_DELETE, subject=run_id))
    crashpoints.reached("run-delete-written")
    context.jobs.notifier.announce(run_id)
    for job_id in job_ids:
        announce_deleted(context.jobs, job_id)
        purge_soon(context.jobs, job_id)
