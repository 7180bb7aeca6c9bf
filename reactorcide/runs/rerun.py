"""Repeat an ended run as its next attempt: all of it, or what failed in it."""

from dataclasses import replace
from typing import Literal

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import Node, NodeState, Run, RunStatus
from reactorcide.jobs import access as job_access
from reactorcide.jobs import ending
from reactorcide.jobs.dependents import Change, Followed, before_start
from reactorcide.lib.clock import now_ms
from reactorcide.runs import RunContext, access
from reactorcide.runs.approve import needs_approval
from reactorcide.store import Records

Only = Literal["all", "failed"]

_FAILED = (NodeState.FAILED, NodeState.CANCELLED, NodeState.SKIPPED_BY_FAILURE)


def rerun(context: RunContext, user: User, run_id: str, only: Only) -> Run:
    """Repeat a run from the same files at the same commit, and return it.

    ``failed`` repeats the nodes that failed, were cancelled or were skipped because of that, with their
    dependents. Earlier jobs stay. Raises ``Conflict`` if the run has not ended, has no nodes, nothing failed
    in it, or its project is disabled.
    """
    access.get(context, user, run_id, ProjectRole.WRITE)
    at_ms = now_ms()
    entry = AuditEntry(at_ms=at_ms, by=user.actor, action=Action.RUN_RERUN, subject=run_id)

    def write(tx: Records) -> tuple[Run, Followed]:
        run = tx.runs.lock(run_id)
        if run is None or not run.is_final:
            raise Conflict("the run has not ended, so it cannot be repeated; cancel it first")
        if run.project_id is not None:
            job_access.check_enabled(tx.projects.get(run.project_id))
        before = tx.runs.nodes(run_id)
        if not before:
            raise Conflict("the run has no jobs, so there is nothing to repeat; start another run")
        names = _names(before, only)
        if not names:
            raise Conflict("nothing in the run has failed; repeat all of it")
        again = before_start(
            replace(
                run,
                # In a project the jobs belong to the member who repeats the run.
                user_id=run.user_id if run.project_id is None else user.user_id,
                attempt=run.attempt + 1,
                status=RunStatus.RUNNING,
                reason=None,
                turn=tx.runs.next_turn(),
                updated_at_ms=at_ms,
                completed_at_ms=None,
            )
        )
        changed = [
            (node, replace(node, state=NodeState.WAITING, reason=None))
            for node in before
            if node.name in names and node.state is not NodeState.WAITING
        ]
        if needs_approval(tx, again, at_ms):
            again = before_start(replace(again, is_held=True))
        tx.runs.save(run, again)
        tx.runs.save_nodes(again, changed)
        tx.audit.add(entry)
        change = Change(tx, now_ms=at_ms)
        change.enter(again)
        followed = change.followed()
        return tx.runs.get(run_id), followed

    run, followed = context.jobs.store.write(write)
    crashpoints.reached("run-rerun-written")
    context.jobs.notifier.announce(run_id)
    ending.after_commit(context.jobs, followed)
    return run


def _names(nodes: list[Node], only: Only) -> set[str]:
    """Return the names of the nodes to repeat."""
    if only == "all":
        return {node.name for node in nodes}
    names: set[str] = set()
    jobs: set[str] = set()
    # Each node comes after its needs.
    for node in nodes:
        if node.state in _FAILED or jobs & set(node.needs):
            names.add(node.name)
            jobs.add(node.job_name)
    return names
