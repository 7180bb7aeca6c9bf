"""Updating runs and their nodes after a job has ended or a run has changed, in one transaction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from reactorcide.domain.errors import IllegalTransition, InvalidInput
from reactorcide.domain.jobs import ACTIVE, Job, JobStatus
from reactorcide.domain.runs import (
    WAITS_FOR_APPROVAL,
    GroupMember,
    Node,
    NodeState,
    Run,
    RunStatus,
    group_phrase,
    waits_for_group,
)
from reactorcide.jobs.node_jobs import make_job
from reactorcide.lib.records import record
from reactorcide.outbox import statuses
from reactorcide.store import Records
from reactorcide.workflows import resolve as rules
from reactorcide.workflows.graph import Graph
from reactorcide.workflows.graph import Node as GraphNode
from reactorcide.workflows.model import Concurrency, Condition, WhenFull
from reactorcide.workflows.model import Job as WorkflowJob
from reactorcide.workflows.references import Template


@record
class Followed:
    """The effects of a change of a run, also in other runs of its concurrency groups."""

    created: Sequence[Job] = ()
    """Jobs to enqueue after the commit."""
    ended: Sequence[Job] = ()
    """Cancelled jobs to stop after the commit."""
    owes: bool = False
    """Whether a commit status has to be sent."""


def resolve(tx: Records, run_id: str | None, *, now_ms: int) -> Followed:
    """Bring a run up to date with its jobs.

    The caller has locked the run before it changed any of its jobs. Safe to repeat. Does nothing for
    ``None``, and for a run that has ended or was deleted.
    """
    change = Change(tx, now_ms=now_ms)
    if run_id is not None:
        change.resolve(run_id)
    return change.followed()


def before_start(run: Run) -> Run:
    """Return a run to start or repeat, in its state before ``Change.enter``."""
    if run.is_held:
        return replace(run, status=RunStatus.WAITING, reason=WAITS_FOR_APPROVAL)
    if run.group_key is None or run.is_final:
        return run
    return replace(run, status=RunStatus.WAITING, reason=waits_for_group(run.group_key))


class Change:
    """One change of runs in one transaction, with all its effects.

    Every run is locked before its nodes are changed, and those before their jobs. For one call of the methods
    below, and then of ``followed``.
    """

    def __init__(self, tx: Records, *, now_ms: int) -> None:
        self._tx = tx
        self._now_ms = now_ms
        self._created: list[Job] = []
        self._ended: dict[str, Job] = {}
        self._to_resolve: list[str] = []
        self._changed: dict[str, None] = {}
        """The runs whose status, or that of a node, may have changed."""
        self._freed: list[Callable[[], str | None]] = []
        """For each group or project that may have a free place: the function that selects the next run."""

    def resolve(self, run_id: str) -> None:
        """Bring a run up to date with its jobs."""
        self._to_resolve.append(run_id)

    def enter(self, run: Run) -> None:
        """Start a new, repeated or approved run, if its concurrency group allows it."""
        self._note(run)
        if run.is_held:
            return
        if run.group_key is not None and not run.is_final:
            is_patient = run.when_full == WhenFull.QUEUE
            others = [] if is_patient else self._tx.groups.runs(run.group_key, besides=run.run_id)
            if run.when_full == WhenFull.REPLACE:
                for other in others:
                    self._cancel_other(other.run_id, f"superseded by #{run.number}")
            elif others:
                self.cancel(run, f"{group_phrase(run.group_key)} is held by {others[0]}")
        self.resolve(run.run_id)

    def cancel(self, run: Run, reason: str) -> Run:
        """Cancel an unfinished run and return it: its active jobs end, and waiting nodes never start."""
        before = self._tx.runs.nodes(run.run_id)
        nodes = {node.name: node for node in before}
        for node in before:
            if node.state is NodeState.WAITING:
                nodes[node.name] = replace(
                    node, state=NodeState.CANCELLED, reason="its run was cancelled", is_held=False
                )
            elif node.state is NodeState.ACTIVE:
                nodes[node.name] = replace(node, state=NodeState.CANCELLED)
                self._cancel_job(node, reason)
        return self._save(run, graph_of(before), before, nodes, reason=reason, is_cancelled=True)

    def followed(self) -> Followed:
        """Write all effects of the change, until there are none left, and return the work for after the
        commit."""
        while self._to_resolve or self._freed:
            if self._to_resolve:
                self._resolve(self._to_resolve.pop())
                continue
            run_id = self._freed[-1]()
            if run_id is None:
                self._freed.pop()
            else:
                # Afterwards it holds the place, or no longer waits for it.
                self._resolve(run_id)
        created = [job for job in self._created if job.job_id not in self._ended]
        owed = [statuses.owe(self._tx, run_id, now_ms=self._now_ms) for run_id in self._changed]
        return Followed(created, list(self._ended.values()), any(owed))

    def _resolve(self, run_id: str) -> None:
        run = self._tx.runs.lock(run_id)
        if run is None or run.is_final:
            return
        if run.status is RunStatus.WAITING:
            if run.is_held:
                return
            if run.group_key is not None and self._tx.groups.next_run(run.group_key) != run_id:
                return
            waiting, run = (
                run,
                replace(run, status=RunStatus.RUNNING, reason=None, updated_at_ms=self._now_ms),
            )
            self._note(run)
            self._tx.runs.save(waiting, run)
        before = self._tx.runs.nodes(run.run_id)
        nodes = {node.name: _as_its_job(node) for node in before}
        graph = graph_of(before)
        room = self._tx.room.free(run.project_id, besides=run.run_id)
        waits_for_room = False
        is_settled = False
        while not is_settled:
            is_settled = True
            states = {name: node.state for name, node in nodes.items()}
            resolution = rules.resolve(graph, states, full_groups=self._full_groups(run, nodes.values()))
            for name, change in resolution.changes.items():
                nodes[name] = replace(nodes[name], state=change.state, reason=change.reason)
            waits_for_room = False
            for name in resolution.ready:
                if room is not None and room <= sum(one.state is NodeState.ACTIVE for one in nodes.values()):
                    waits_for_room = True
                    break
                try:
                    job = make_job(self._tx, run, nodes[name], now_ms=self._now_ms)
                except InvalidInput as exc:
                    # Other runs may wait for the place of this one.
                    is_settled = False
                    nodes[name] = replace(nodes[name], state=NodeState.FAILED, reason=str(exc))
                    continue
                self._created.append(job)
                nodes[name] = replace(
                    nodes[name],
                    state=NodeState.ACTIVE,
                    reason=None,
                    job_id=job.job_id,
                    job_status=job.status,
                    jobs=nodes[name].jobs + 1,
                )
            for name in resolution.held:
                nodes[name] = self._hold(run, nodes[name])
                # It has ended, or the holders of the place have.
                is_settled = is_settled and nodes[name].is_held
        for name, node in nodes.items():
            if node.is_held and name not in resolution.held:
                nodes[name] = replace(node, is_held=False)
        self._save(run, graph, before, nodes, waits_for_room=waits_for_room)

    def _full_groups(self, run: Run, nodes: Iterable[Node]) -> set[str]:
        """Return the groups of waiting nodes that another run holds, or gets first."""
        keys = {node.group_key for node in nodes if node.group_key and node.state is NodeState.WAITING}
        return {key for key in keys if self._tx.groups.is_full(key, run)}

    def _hold(self, run: Run, node: Node) -> Node:
        """Return the state of a node whose concurrency group is in use.

        It waits, or ends, or has ended the older ones. Nodes of one run are equally old and wait for each
        other.
        """
        is_patient = node.is_held or node.when_full == WhenFull.QUEUE
        others = [] if is_patient else self._tx.groups.nodes(node.group_key or "", besides=run.run_id)
        if not others:
            return replace(node, is_held=True)
        if node.when_full == WhenFull.CANCEL:
            reason = f"{group_phrase(node.group_key or '')} is held by {others[0]}"
            return replace(node, state=NodeState.CANCELLED, reason=reason)
        newer = [other for other in others if other.turn > run.turn]
        if newer:
            return replace(node, state=NodeState.CANCELLED, reason=f"superseded by #{newer[-1].number}")
        for other in others:
            self._end(other, f"superseded by #{run.number}")
        return node

    def _end(self, member: GroupMember, reason: str) -> None:
        """End a node of another run in favour of a newer one in its group."""
        run = self._tx.runs.lock(member.run_id)
        (node,) = (item for item in self._tx.runs.nodes(member.run_id) if item.name == member.node)
        if run is None:
            return
        if node.state is NodeState.ACTIVE:
            self._cancel_job(node, reason)
        ended = replace(node, state=NodeState.CANCELLED, reason=reason, is_held=False)
        self._note(run)
        self._tx.runs.save_nodes(replace(run, updated_at_ms=self._now_ms), [(node, ended)])
        self._free(run, node)
        self._to_resolve.append(run.run_id)

    def _cancel_other(self, run_id: str, reason: str) -> None:
        run = self._tx.runs.lock(run_id)
        if run is not None and not run.is_final:
            self.cancel(run, reason)

    def _cancel_job(self, node: Node, reason: str) -> None:
        # A run that was deleted or has just ended does not change.
        with suppress(IllegalTransition):
            job = cancel_row(self._tx, node.job_id or "", at_ms=self._now_ms, reason=reason)
            self._ended[job.job_id] = job

    def _save(
        self,
        run: Run,
        graph: Graph,
        before: list[Node],
        nodes: Mapping[str, Node],
        *,
        reason: str | None = None,
        is_cancelled: bool = False,
        waits_for_room: bool = False,
    ) -> Run:
        """Write the states of the nodes and the status of the run; returns the run."""
        changed = [(old, nodes[old.name]) for old in before if nodes[old.name] != old]
        states = {name: node.state for name, node in nodes.items()}
        status = rules.run_status(graph, states, is_cancelled=is_cancelled)
        if not changed and status is run.status and waits_for_room == run.waits_for_room:
            return run
        after = replace(
            run,
            status=status,
            reason=reason,
            is_held=run.is_held and not status.is_final,
            waits_for_room=waits_for_room,
            updated_at_ms=self._now_ms,
            completed_at_ms=self._now_ms if status.is_final else None,
        )
        self._note(run)
        self._tx.runs.save_nodes(after, changed)
        self._tx.runs.save(run, after)
        for old, node in changed:
            if old.state is NodeState.ACTIVE and node.state is not NodeState.ACTIVE:
                self._free(run, old)
        if after.is_final and run.status is RunStatus.RUNNING and run.group_key is not None:
            self._freed.append(partial(self._tx.groups.next_run, run.group_key))
        return after

    def _note(self, run: Run) -> None:
        """Record the new commit status of a run, if it has a forge and the status changed."""
        if run.status_context is not None:
            self._changed[run.run_id] = None

    def _free(self, run: Run, node: Node) -> None:
        if run.project_id is not None:
            self._freed.append(partial(self._tx.room.next_run, run.project_id))
        if node.group_key is not None:
            self._freed.append(partial(self._tx.groups.run_of_next_node, node.group_key))


def cancel_row(tx: Records, job_id: str, *, at_ms: int, reason: str = "cancelled") -> Job:
    """Write the cancellation of an active job; raises ``IllegalTransition`` if it is not active."""
    return tx.jobs.transition(
        job_id, JobStatus.CANCELLED, now_ms=at_ms, only_from=ACTIVE, completed_at_ms=at_ms, error=reason
    )


def graph_of(nodes: list[Node]) -> Graph:
    """Return the graph of a run, with the parts of each job that decide about its dependents."""
    return Graph(
        tuple(
            GraphNode(
                name=node.name,
                job_name=node.job_name,
                job=WorkflowJob(
                    command="",
                    needs=node.needs,
                    condition=Condition(node.condition),
                    allow_failure=node.allow_failure,
                    concurrency=None if node.group_key is None else Concurrency(Template((node.group_key,))),
                ),
                combination=node.combination,
                max_parallel=node.max_parallel,
                skipped=node.skipped,
            )
            for node in nodes
        )
    )


def _as_its_job(node: Node) -> Node:
    """Return a node with the state of its newest job."""
    if node.state is not NodeState.ACTIVE:
        return node
    if node.job_status is None:
        return replace(node, state=NodeState.FAILED, reason="its job was removed")
    return replace(node, state=NodeState.of_job(node.job_status))
