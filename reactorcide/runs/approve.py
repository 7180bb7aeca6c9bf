"""Approve untrusted code: the waiting runs of one commit start."""

from dataclasses import replace

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict
from reactorcide.domain.projects import ProjectRole, PullRequests
from reactorcide.domain.runs import Run, RunStatus
from reactorcide.jobs import access as job_access
from reactorcide.jobs import ending
from reactorcide.jobs.dependents import Change, Followed, before_start
from reactorcide.lib.clock import now_ms
from reactorcide.runs import RunContext, access
from reactorcide.store import Records

VALID_MS = 14 * 24 * 60 * 60 * 1000
"""How long an approval is valid."""


def approve(context: RunContext, user: User, run_id: str) -> Run:
    """Approve the commit of a run that waits for approval, and return the run; safe to repeat.

    All runs of the project that wait for approval at that commit start. The approval is for that commit only,
    and is valid for 14 days. Raises ``Conflict`` if the run waits for none, or its project is disabled.
    """
    run = access.get(context, user, run_id, ProjectRole.WRITE)
    at_ms = now_ms()

    def write(tx: Records) -> list[Followed]:
        run = tx.runs.get(run_id)
        project_id, sha = run.project_id or "", run.sha or ""
        if not run.is_held:
            if run.is_trusted or tx.approvals.approved_at_ms(project_id, sha) is None:
                raise Conflict(f"the run is {run.status} and waits for no approval")
            return []
        job_access.check_enabled(tx.projects.get(project_id))
        tx.approvals.give(project_id, sha, user.user_id, now_ms=at_ms)
        tx.audit.add(AuditEntry(at_ms=at_ms, by=user.actor, action=Action.RUN_APPROVE, subject=run_id))
        return [_release(tx, held_id, at_ms) for held_id in tx.runs.held(project_id, sha)]

    released = context.jobs.store.write(write)
    crashpoints.reached("run-approve-written")
    for followed in released:
        ending.after_commit(context.jobs, followed)
    context.jobs.notifier.announce(run.run_id)
    return context.jobs.store.runs.get(run_id)


def needs_approval(tx: Records, run: Run, at_ms: int) -> bool:
    """Return whether a run has untrusted code without a valid approval."""
    needs_it = run.event.get("name", "") in ("pull_request_opened", "pull_request_updated")
    if run.is_trusted or run.project_id is None or run.is_final or not needs_it:
        return False
    if tx.projects.get(run.project_id).pull_requests is PullRequests.ALL:
        return False
    approved_at_ms = tx.approvals.approved_at_ms(run.project_id, run.sha or "")
    return approved_at_ms is None or approved_at_ms <= at_ms - VALID_MS


def _release(tx: Records, run_id: str, at_ms: int) -> Followed:
    change = Change(tx, now_ms=at_ms)
    held = tx.runs.lock(run_id)
    if held is not None and held.is_held:
        # Its place in its concurrency group counts from now.
        running = replace(held, status=RunStatus.RUNNING, reason=None, is_held=False)
        started = before_start(replace(running, turn=tx.runs.next_turn(), updated_at_ms=at_ms))
        tx.runs.save(held, started)
        change.enter(started)
    return change.followed()
