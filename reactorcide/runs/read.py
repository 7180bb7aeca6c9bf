"""Reading runs: one with its nodes and the reasons of waiting ones; lists; waiting for a change."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic

from reactorcide.domain.accounts import User
from reactorcide.domain.runs import Node, NodeState, Run, RunFilter, RunStatus, waits_for_group
from reactorcide.lib.notifier import LOOK_EVERY_S
from reactorcide.lib.records import record
from reactorcide.runs import RunContext, access
from reactorcide.store.groups import Groups
from reactorcide.workflows.resolve import listed

_NOT_STARTED = "its run has not started"


@record
class RunView:
    """A run with its nodes, each after its needs, and the reasons of waiting nodes."""

    run: Run
    nodes: Sequence[Node]
    waits: Mapping[str, str]


def view(context: RunContext, user: User, run_id: str) -> RunView:
    """Return a run that ``user`` may see, with its nodes."""
    run = access.get(context, user, run_id)
    nodes = context.jobs.store.runs.nodes(run_id)
    if run.is_held:
        return RunView(run, nodes, {node.name: _NOT_STARTED for node in nodes})
    if run.status is RunStatus.WAITING and run.group_key is not None:
        ahead = context.jobs.store.groups.runs(run.group_key, besides=run_id, limit=1)
        reason = _waits_for_group(run.group_key, ahead)
        return RunView(replace(run, reason=reason), nodes, {node.name: _NOT_STARTED for node in nodes})
    return RunView(run, nodes, _waits(context.jobs.store.groups, run, nodes))


def wait_for_change(context: RunContext, user: User, run_id: str, *, timeout_s: float) -> RunView:
    """Return the run when its status or that of a node changes, it has ended, or after the timeout."""
    deadline = monotonic() + timeout_s
    with context.jobs.notifier.watching(run_id) as changed:
        first = view(context, user, run_id)
        now = first
        while not now.run.is_final and _state(now) == _state(first) and not context.jobs.notifier.closed:
            remaining_s = deadline - monotonic()
            if remaining_s <= 0:
                break
            changed.wait(min(remaining_s, LOOK_EVERY_S))
            changed.clear()
            now = view(context, user, run_id)
    return now


def page(
    context: RunContext, criteria: RunFilter, *, limit: int, after: tuple[int, str] | None
) -> tuple[list[Run], int]:
    """Return a page of runs, newest first, and the number of matching runs."""
    return context.jobs.store.runs.page(criteria, limit=limit, after=after)


def file(context: RunContext, user: User, run_id: str) -> str:
    """Return the text of a run's workflow file; several files are concatenated."""
    access.get(context, user, run_id)
    files = context.jobs.store.runs.files(run_id)
    if len(files) == 1:
        return next(iter(files.values()))
    return "".join(f"# {path}\n{text}\n" for path, text in sorted(files.items()))


def _state(run: RunView) -> tuple[object, ...]:
    return run.run.status, run.run.attempt, *(node.status for node in run.nodes)


def _waits_for_group(key: str, ahead: Sequence[object]) -> str:
    """Return a sentence that says which group is waited for, and who holds it or comes first."""
    return waits_for_group(key) + (f", held by {ahead[0]}" if ahead else "")


def _waits(groups: Groups, run: Run, nodes: Sequence[Node]) -> dict[str, str]:
    """Return the reason of each waiting node."""
    going: dict[str, list[str]] = {}
    for node in nodes:
        if not node.state.is_final:
            going.setdefault(node.job_name, []).append(node.name)
    waits = {}
    for node in nodes:
        if node.state is not NodeState.WAITING:
            continue
        names = [name for job in node.needs for name in going.get(job, ())]
        if names:
            waits[node.name] = f"it waits for {listed(names)}"
        elif node.is_held and node.group_key is not None:
            ahead: list[object] = [
                other.name
                for other in nodes
                if other.group_key == node.group_key and other.state is NodeState.ACTIVE
            ]
            ahead += groups.nodes(node.group_key, besides=run.run_id, limit=1)
            waits[node.name] = _waits_for_group(node.group_key, ahead)
        elif run.waits_for_room:
            waits[node.name] = "its project has as many jobs as may run at once (max_running)"
        elif node.max_parallel is not None:
            waits[node.name] = f"no more than {node.max_parallel} of its matrix run at once"
        else:
            waits[node.name] = "it is about to start"
    return waits
