"""Cancel a run: its active jobs are cancelled, and what waits never starts."""

from dataclasses import replace

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict, IllegalTransition
from reactorcide.domain.jobs import Job
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import NodeState, Run, RunStatus
from reactorcide.jobs import cancel as of_jobs
from reactorcide.jobs import dependents, ending, lifecycle
from reactorcide.lib.clock import now_ms
from reactorcide.runs import RunContext, access
from reactorcide.store import Records


def cancel(context: RunContext, user: User, run_id: str) -> Run:
    """Cancel a run that is not over and return it, ``cancelled``; again is fine.

    Raises ``Conflict`` if it ended otherwise.
    """
    run = access.get(context, user, run_id, ProjectRole.WRITE)
    at_ms = now_ms()
    entry = AuditEntry(at_ms=at_ms, by=user.actor, action=Action.RUN_CANCEL, subject=run_id)

    def write(tx: Records) -> tuple[Run, list[Job]] | None:
        run = tx.runs.lock(run_id)
        if run is None or run.is_final:
            return None
        tx.audit.add(entry)
        return _cancel(tx, run, at_ms=at_ms)

    written = context.jobs.store.write(write)
    if written is None:
        run = access.get(context, user, run_id)
        if run.status is not RunStatus.CANCELLED:
            raise Conflict(f"the run is {run.status} already, so it cannot be cancelled")
        return run
    run, ended = written
    crashpoints.reached("run-cancel-written")
    for job in ended:
        lifecycle.changed(context.jobs, job)
        of_jobs.stop(context.jobs, job)
    context.jobs.notifier.announce(run_id)
    return run


def _cancel(tx: Records, run: Run, *, at_ms: int) -> tuple[Run, list[Job]]:
    before = tx.runs.nodes(run.run_id)
    nodes = {node.name: node for node in before}
    ended: list[Job] = []
    for node in before:
        if node.state is NodeState.WAITING:
            nodes[node.name] = replace(node, state=NodeState.CANCELLED, reason="its run was cancelled")
        elif node.state is NodeState.ACTIVE:
            nodes[node.name] = replace(node, state=NodeState.CANCELLED)
            if node.job_id is not None:
                try:
                    ended.append(ending.cancel_row(tx, node.job_id, at_ms=at_ms))
                except IllegalTransition:
                    # It is gone.
                    continue
    graph = dependents.graph_of(before)
    return (
        dependents.save(tx, run, graph, before, nodes, now_ms=at_ms, reason="cancelled", is_cancelled=True),
        ended,
    )
