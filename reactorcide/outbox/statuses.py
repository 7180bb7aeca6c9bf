"""The commit status that a run owes its forge."""

from collections.abc import Sequence

from reactorcide.domain.events import EventName
from reactorcide.domain.forges import StatusState
from reactorcide.domain.runs import Node, NodeState, Run, RunStatus
from reactorcide.domain.statuses import OwedStatus
from reactorcide.store import Records
from reactorcide.workflows.resolve import listed

_MAX_DESCRIPTION_CHARS = 1000
_MAX_COUNTED = 3


def owe(tx: Records, run_id: str, *, now_ms: int) -> bool:
    """Write the status that a run owes its forge now, and return whether it differs from the previous one.

    Call it last in the transaction that changes the run.
    """
    run = tx.runs.find(run_id)
    if run is None or run.status_context is None or not tx.outbox.takes_statuses(run.project_id or ""):
        return False
    status = status_of(run, tx.runs.nodes(run_id))
    return status is not None and tx.outbox.owe_status(status, now_ms=now_ms)


def context_of(run: Run) -> str | None:
    """Return the context of a new run's status, one for each workflow and kind of event.

    A schedule has none.
    """
    name = EventName(run.event["name"])
    if name in (EventName.SCHEDULE, EventName.MANUAL):
        return None
    if not run.file:
        # Only the event of the commit is known.
        return "reactorcide/config"
    kind = {EventName.PUSH: "push", EventName.TAG_CREATED: "tag"}.get(name, "pr")
    return f"reactorcide/{kind}/{run.workflow_id}"


def status_of(run: Run, nodes: Sequence[Node]) -> OwedStatus | None:
    """Return the status that a run owes its forge now; ``None`` if it owes none."""
    if run.project_id is None or run.sha is None or run.status_context is None:
        return None
    state, description = _state(run, nodes)
    return OwedStatus(
        project_id=run.project_id,
        sha=run.sha,
        context=run.status_context,
        state=state,
        description=description[:_MAX_DESCRIPTION_CHARS],
        run_id=run.run_id,
        turn=run.turn,
    )


def _state(run: Run, nodes: Sequence[Node]) -> tuple[StatusState, str]:
    failed = [
        node.name for node in nodes if node.has_failed and node.state is not NodeState.SKIPPED_BY_FAILURE
    ]
    reason = (run.reason or "").partition("\n")[0]
    match run.status:
        case RunStatus.WAITING:
            return StatusState.PENDING, "waiting for approval" if run.is_held else reason
        case RunStatus.RUNNING if failed:
            # A forge accepts a thousand statuses of a commit and context, and each failure would be one.
            failures = (
                _failed(failed, nodes)
                if len(failed) <= _MAX_COUNTED
                else f"more than {_MAX_COUNTED} jobs failed"
            )
            return StatusState.FAILURE, f"{failures}; others still run"
        case RunStatus.RUNNING:
            return StatusState.PENDING, "running"
        case RunStatus.COMPLETED:
            return StatusState.SUCCESS, _completed(nodes)
        case RunStatus.SKIPPED:
            return StatusState.SUCCESS, f"nothing to do: {reason}" if reason else "nothing to do"
        case RunStatus.FAILED if failed:
            return StatusState.FAILURE, _failed(failed, nodes)
    # A file that is wrong, or a run that was cancelled.
    return StatusState.ERROR, reason or run.status


def _failed(failed: list[str], nodes: Sequence[Node]) -> str:
    total = sum(node.state is not NodeState.SKIPPED for node in nodes)
    return f"{len(failed)} of {total} {'job' if total == 1 else 'jobs'} failed: {listed(failed)}"


def _completed(nodes: Sequence[Node]) -> str:
    completed = sum(node.state is NodeState.COMPLETED for node in nodes)
    text = f"{completed} {'job' if completed == 1 else 'jobs'} completed"
    # They are allowed to fail.
    others = [node.name for node in nodes if node.state in (NodeState.FAILED, NodeState.CANCELLED)]
    return f"{text}; allowed to fail: {listed(others)}" if others else text
