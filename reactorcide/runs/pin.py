"""Pin a run: retention removes neither it nor its jobs."""

from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import Run
from reactorcide.lib.clock import now_ms
from reactorcide.runs import RunContext, access


def pin(context: RunContext, user: User, run_id: str, *, pinned: bool) -> Run:
    """Pin or unpin a run of any status, and return it; safe to repeat."""
    run = access.get(context, user, run_id, ProjectRole.WRITE)
    if run.pinned is pinned:
        return run
    action = Action.RUN_PIN if pinned else Action.RUN_UNPIN
    with context.jobs.store.transaction() as tx:
        tx.runs.pin(run_id, pinned)
        tx.audit.add(AuditEntry(at_ms=now_ms(), by=user.actor, action=action, subject=run_id))
    return access.get(context, user, run_id)
