"""Looking at runs: one, with its nodes and why what waits waits; lists; waiting for a change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from reactorcide.domain.accounts import User
from reactorcide.domain.runs import Node, NodeState, Run, RunFilter
from reactorcide.lib.notifier import LOOK_EVERY_S
from reactorcide.runs import RunContext, access
from reactorcide.workflows.resolve import listed


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its nodes, each after those that it needs, and why those wait that do."""

    run: Run
    nodes: Sequence[Node]
    waits: Mapping[str, str]


def view(context: RunContext, user: User, run_id: str) -> RunView:
    """Return a run that ``user`` may see, with its nodes."""
    run = access.get(context, user, run_id)
    nodes = context.jobs.store.runs.nodes(run_id)
    return RunView(run, nodes, _waits(nodes))


def wait_for_change(context: RunContext, user: User, run_id: str, *, timeout_s: float) -> RunView:
    """Return the run as soon as its status or that of a node is another one, it is over, or time is up."""
    deadline = monotonic() + timeout_s
    with context.jobs.notifier.watching(run_id) as changed:
        first = view(context, user, run_id)
        found = first
        while not found.run.is_final and _state(found) == _state(first) and not context.jobs.notifier.closed:
            left_s = deadline - monotonic()
            if left_s <= 0:
                break
            changed.wait(min(left_s, LOOK_EVERY_S))
            changed.clear()
            found = view(context, user, run_id)
    return found


def page(context: RunContext, wanted: RunFilter, *, limit: int, after: tuple[int, str] | None) -> list[Run]:
    """Return a page of runs, newest first."""
    return context.jobs.store.runs.page(wanted, limit=limit, after=after)


def file(context: RunContext, user: User, run_id: str) -> str:
    """Return the text of the file that a run's workflow was read from; of several, one after the other."""
    access.get(context, user, run_id)
    files = context.jobs.store.runs.files(run_id)
    if len(files) == 1:
        return next(iter(files.values()))
    return "".join(f"# {path}\n{text}\n" for path, text in sorted(files.items()))


def _state(found: RunView) -> tuple[object, ...]:
    return found.run.status, found.run.attempt, *(node.status for node in found.nodes)


def _waits(nodes: Sequence[Node]) -> dict[str, str]:
    """Return for each node that waits what it waits for."""
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
        elif node.max_parallel is not None:
            waits[node.name] = f"no more than {node.max_parallel} of its matrix run at once"
        else:
            waits[node.name] = "it is about to start"
    return waits
