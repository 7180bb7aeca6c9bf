"""Cancel a run: its active jobs are cancelled, and waiting nodes never start."""

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import Run, RunStatus
from reactorcide.jobs import ending
from reactorcide.jobs.dependents import Change, Followed
from reactorcide.lib.clock import now_ms
from reactorcide.runs import RunContext, access
from reactorcide.store import Records


def cancel(context: RunContext, user: User, run_id: str) -> Run:
    """Cancel an unfinished run and return it, ``cancelled``; safe to repeat.

    Raises ``Conflict`` if it ended otherwise.
    """
    run = access.get(context, user, run_id, ProjectRole.WRITE)
    at_ms = now_ms()
    entry = AuditEntry(at_ms=at_ms, by=user.actor, action=Action.RUN_CANCEL, subject=run_id)

    def write(tx: Records) -> tuple[Run, Followed] | None:
        run = tx.runs.lock(run_id)
        if run is None or run.is_final:
            return None
        tx.audit.add(entry)
        change = Change(tx, now_ms=at_ms)
        return change.cancel(run, "cancelled"), change.followed()

    written = context.jobs.store.write(write)
    if written is None:
        run = access.get(context, user, run_id)
        if run.status is not RunStatus.CANCELLED:
            raise Conflict(f"the run is already {run.status}, so it cannot be cancelled")
        return run
    run, followed = written
    crashpoints.reached("run-cancel-written")
    ending.after_commit(context.jobs, followed)
    context.jobs.notifier.announce(run_id)
    return run
