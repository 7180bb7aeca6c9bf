"""The next states of a run's nodes, from the states of the others.

A node is ``waiting`` until all its needs have ended; then it is ready, skipped or failed. ``resolve`` also
applies the effects of its own decisions, so that no node waits for ever. A ready node gets a job, unless its
concurrency group is in use.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field

from reactorcide.domain.runs import NodeState, RunStatus
from reactorcide.lib.records import record
from reactorcide.workflows.graph import Graph, Node
from reactorcide.workflows.model import Condition


@record
class Change:
    """The final state of a waiting node that does not run, and the reason."""

    state: NodeState
    reason: str


@record
class Resolution:
    """The decisions."""

    ready: tuple[str, ...] = ()
    """The nodes that get a job now, in the order of the graph."""
    held: tuple[str, ...] = ()
    """The ready nodes whose concurrency group is in use."""
    changes: Mapping[str, Change] = field(default_factory=dict)
    """The nodes that end without a job."""


def resolve(graph: Graph, states: Mapping[str, NodeState], full_groups: Collection[str] = ()) -> Resolution:
    """Return the decisions for the given states; a node that is not in ``states`` is waiting.

    ``full_groups`` are the concurrency groups whose place another run has. Repeating it with the same
    states gives the same. Costs time linear in nodes and needs.
    """
    now = {node.name: states.get(node.name, NodeState.WAITING) for node in graph.nodes}
    active = Counter(node.job_name for node in graph.nodes if now[node.name] is NodeState.ACTIVE)
    active_groups = {node.group for node in graph.nodes if now[node.name] is NodeState.ACTIVE}
    full = {*full_groups, *active_groups} - {None}
    ready: list[str] = []
    held: list[str] = []
    changes: dict[str, Change] = {}
    summaries: dict[str, _Summary] = {}
    for node in graph.nodes:
        # Nodes come after their needs, so that a job's summary is complete when it is used.
        if now[node.name] is not NodeState.WAITING:
            continue
        needs = []
        for job in node.job.needs:
            if job not in summaries:
                summaries[job] = _summary([graph.by_name[name] for name in graph.by_job[job]], now)
            needs.append(summaries[job])
        if node.skipped is not None:
            change: Change | None = Change(NodeState.SKIPPED, node.skipped)
        elif all(need.is_over for need in needs):
            change = _change(node, needs)
        else:
            continue
        if change is not None:
            now[node.name] = change.state
            changes[node.name] = change
        elif node.max_parallel is not None and active[node.job_name] >= node.max_parallel:
            continue
        elif node.group in full:
            # It takes no place of its matrix: another combination may have another group.
            held.append(node.name)
        else:
            active[node.job_name] += 1
            ready.append(node.name)
            full |= {node.group} - {None}
    return Resolution(tuple(ready), tuple(held), changes)


def cancel(graph: Graph, states: Mapping[str, NodeState]) -> tuple[str, ...]:
    """Return the nodes that are cancelled with their run: all waiting ones, also those with ``always``."""
    return tuple(
        node.name for node in graph.nodes if states.get(node.name, NodeState.WAITING) is NodeState.WAITING
    )


def run_status(graph: Graph, states: Mapping[str, NodeState], *, is_cancelled: bool = False) -> RunStatus:
    """Return the status of a run, which ends only when nothing runs or waits."""
    now = [(node, states.get(node.name, NodeState.WAITING)) for node in graph.nodes]
    if not all(state.is_final for _, state in now):
        return RunStatus.RUNNING
    if is_cancelled:
        return RunStatus.CANCELLED
    if any(_has_failed(node, state) for node, state in now):
        return RunStatus.FAILED
    if all(state is NodeState.SKIPPED for _, state in now):
        return RunStatus.SKIPPED
    return RunStatus.COMPLETED


def has_failed(graph: Graph, states: Mapping[str, NodeState]) -> bool:
    """Return whether a run will fail, regardless of its unfinished nodes."""
    return any(_has_failed(node, states.get(node.name, NodeState.WAITING)) for node in graph.nodes)


@record
class _Summary:
    """The results of a job's nodes for its dependents."""

    is_over: bool
    failed: tuple[str, ...]
    skipped: tuple[str, ...]


def _summary(nodes: Iterable[Node], states: Mapping[str, NodeState]) -> _Summary:
    in_order = [(node, states[node.name]) for node in nodes]
    return _Summary(
        all(state.is_final for _, state in in_order),
        tuple(node.name for node, state in in_order if _has_failed(node, state)),
        tuple(node.name for node, state in in_order if state is NodeState.SKIPPED),
    )


def _has_failed(node: Node, state: NodeState) -> bool:
    return state.counts_as_failed(allow_failure=node.job.allow_failure)


def _change(node: Node, needs: list[_Summary]) -> Change | None:
    """Return the decision for a node that does not run, once its needs have ended; ``None`` if it is
    ready."""
    failed = [name for need in needs for name in need.failed]
    skipped = [name for need in needs for name in need.skipped]
    condition = node.job.condition
    if condition in (Condition.ALL_SUCCESS, Condition.NO_FAILURE) and failed:
        return Change(NodeState.SKIPPED_BY_FAILURE, f"{listed(failed)} did not succeed")
    if condition is Condition.ALL_SUCCESS and skipped:
        return Change(NodeState.SKIPPED, f"{listed(skipped)} was skipped")
    if condition is Condition.ANY_FAILED and not failed:
        return Change(NodeState.SKIPPED, "nothing that it needs has failed")
    return None


def listed(names: list[str]) -> str:
    """Return the names of nodes for a sentence; of many the first."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
