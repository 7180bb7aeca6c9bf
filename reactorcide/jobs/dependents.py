"""What becomes of runs and their nodes once a job has ended, or a run has changed, all in one transaction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from reactorcide.domain.definition import MAX_EXEC_BYTES, MAX_VARIABLES, JobDefinition
from reactorcide.domain.errors import IllegalTransition, InvalidInput
from reactorcide.domain.jobs import ACTIVE, Job, JobStatus
from reactorcide.domain.outputs import Outputs, Values
from reactorcide.domain.runs import (
    GroupMember,
    JobTemplate,
    Node,
    NodeState,
    Run,
    RunStatus,
    group_name,
)
from reactorcide.domain.secrets import guess, redacted_url
from reactorcide.jobs.run_secrets import RunSecrets, variables_with_secrets
from reactorcide.jobs.submit import SUBMIT_GRACE_MS
from reactorcide.jobs.templates import fill
from reactorcide.lib.ids import new_id
from reactorcide.store import Records
from reactorcide.workflows import resolve as rules
from reactorcide.workflows.graph import Graph
from reactorcide.workflows.graph import Node as GraphNode
from reactorcide.workflows.model import Concurrency, Condition, WhenFull
from reactorcide.workflows.model import Job as WorkflowJob
from reactorcide.workflows.references import Reference, Template

_EVENT_VARIABLES = {
    "name": "EVENT_TYPE",
    "branch": "BRANCH",
    "tag": "TAG",
    "number": "PR_NUMBER",
    "base_branch": "PR_BASE_REF",
    "actor": "HEAD_ACTOR",
    "project": "PROJECT",
}


@dataclass(frozen=True, slots=True)
class Followed:
    """What follows from a change of a run, also in other runs of its concurrency groups."""

    made: Sequence[Job] = ()
    """Jobs to be given to the queue once all is committed."""
    ended: Sequence[Job] = ()
    """Jobs that were cancelled, and are to be stopped."""


def resolve(tx: Records, run_id: str | None, *, now_ms: int) -> Followed:
    """Bring a run up to date with its jobs.

    The caller has locked the run before it changed any of its jobs. Repeating it is harmless. A run that is
    over, or gone, stays as it is; so does ``None``.
    """
    change = Change(tx, now_ms=now_ms)
    if run_id is not None:
        change.resolve(run_id)
    return change.followed()


def before_start(run: Run) -> Run:
    """Return a run that is to be started or repeated as it is up to ``Change.enter``."""
    if run.group_key is None or run.is_final:
        return run
    reason = f"it waits for {_group(run.group_key)}"
    return replace(run, status=RunStatus.WAITING, reason=reason)


class Change:
    """One change of runs in one transaction, with all that follows from it.

    Every run is locked before its nodes are changed, and those before their jobs. For one call of the methods
    below, and then of ``followed``.
    """

    def __init__(self, tx: Records, *, now_ms: int) -> None:
        self._tx = tx
        self._now_ms = now_ms
        self._made: list[Job] = []
        self._ended: dict[str, Job] = {}
        self._to_resolve: list[str] = []
        self._freed: list[Callable[[], str | None]] = []
        """For each concurrency group whose place is free perhaps: which run gets it."""

    def resolve(self, run_id: str) -> None:
        """Bring a run up to date with its jobs."""
        self._to_resolve.append(run_id)

    def enter(self, run: Run) -> None:
        """Start a run that is new or repeated, as far as its concurrency group lets it."""
        if run.group_key is not None and not run.is_final:
            is_patient = run.when_full == WhenFull.QUEUE
            others = [] if is_patient else self._tx.groups.runs(run.group_key, besides=run.run_id)
            if run.when_full == WhenFull.REPLACE:
                for other in others:
                    self._cancel_other(other.run_id, f"superseded by #{run.number}")
            elif others:
                self.cancel(run, f"{_group(run.group_key)} is held by {others[0]}")
        self.resolve(run.run_id)

    def cancel(self, run: Run, reason: str) -> Run:
        """Cancel a run that is not over and return it: its active jobs end, and what waits never starts."""
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
        """Return what is to be done once all is committed, and write what follows until nothing does."""
        while self._to_resolve or self._freed:
            if self._to_resolve:
                self._resolve(self._to_resolve.pop())
                continue
            run_id = self._freed[-1]()
            if run_id is None:
                self._freed.pop()
            else:
                # Afterwards it has the place, or does not wait for it any more.
                self._resolve(run_id)
        made = [job for job in self._made if job.job_id not in self._ended]
        return Followed(made, list(self._ended.values()))

    def _resolve(self, run_id: str) -> None:
        run = self._tx.runs.lock(run_id)
        if run is None or run.is_final:
            return
        if run.status is RunStatus.WAITING:
            if run.group_key is None or self._tx.groups.next_run(run.group_key) != run_id:
                return
            waiting, run = (
                run,
                replace(run, status=RunStatus.RUNNING, reason=None, updated_at_ms=self._now_ms),
            )
            self._tx.runs.save(waiting, run)
        before = self._tx.runs.nodes(run.run_id)
        nodes = {node.name: _as_its_job(node) for node in before}
        graph = graph_of(before)
        is_settled = False
        while not is_settled:
            is_settled = True
            states = {name: node.state for name, node in nodes.items()}
            found = rules.resolve(graph, states, taken=self._taken(run, nodes.values()))
            for name, change in found.changes.items():
                nodes[name] = replace(nodes[name], state=change.state, reason=change.reason)
            for name in found.ready:
                try:
                    job = _make_job(self._tx, run, nodes[name], now_ms=self._now_ms)
                except InvalidInput as exc:
                    # Others may wait for this one.
                    is_settled = False
                    nodes[name] = replace(nodes[name], state=NodeState.FAILED, reason=str(exc))
                    continue
                self._made.append(job)
                nodes[name] = replace(
                    nodes[name],
                    state=NodeState.ACTIVE,
                    reason=None,
                    job_id=job.job_id,
                    job_status=job.status,
                    jobs=nodes[name].jobs + 1,
                )
            for name in found.held:
                nodes[name] = self._hold(run, nodes[name])
                # It has ended, or those have that had the place.
                is_settled = is_settled and nodes[name].is_held
        for name, node in nodes.items():
            if node.is_held and name not in found.held:
                nodes[name] = replace(node, is_held=False)
        self._save(run, graph, before, nodes)

    def _taken(self, run: Run, nodes: Iterable[Node]) -> set[str]:
        """Return the groups of waiting nodes whose place another run has, or gets first."""
        keys = {node.group_key for node in nodes if node.state is NodeState.WAITING} - {None}
        return {key for key in keys if key is not None and self._tx.groups.is_taken(key, run)}

    def _hold(self, run: Run, node: Node) -> Node:
        """Return a node as it is after it has found the place of its group taken.

        It waits, or it ends, or it has ended the older ones. Nodes of one run are equally old: they wait for
        each other.
        """
        is_patient = node.is_held or node.when_full == WhenFull.QUEUE
        others = [] if is_patient else self._tx.groups.nodes(node.group_key or "", besides=run.run_id)
        if not others:
            return replace(node, is_held=True)
        if node.when_full == WhenFull.CANCEL:
            reason = f"{_group(node.group_key or '')} is held by {others[0]}"
            return replace(node, state=NodeState.CANCELLED, reason=reason)
        newer = [other for other in others if other.turn > run.turn]
        if newer:
            return replace(node, state=NodeState.CANCELLED, reason=f"superseded by #{newer[-1].number}")
        for other in others:
            self._end(other, f"superseded by #{run.number}")
        return node

    def _end(self, member: GroupMember, reason: str) -> None:
        """End a node of another run for one of its group."""
        run = self._tx.runs.lock(member.run_id)
        (node,) = (item for item in self._tx.runs.nodes(member.run_id) if item.name == member.node)
        if run is None:
            return
        if node.state is NodeState.ACTIVE:
            self._cancel_job(node, reason)
        ended = replace(node, state=NodeState.CANCELLED, reason=reason, is_held=False)
        self._tx.runs.save_nodes(replace(run, updated_at_ms=self._now_ms), [(node, ended)])
        self._free(node)
        self._to_resolve.append(run.run_id)

    def _cancel_other(self, run_id: str, reason: str) -> None:
        run = self._tx.runs.lock(run_id)
        if run is not None and not run.is_final:
            self.cancel(run, reason)

    def _cancel_job(self, node: Node, reason: str) -> None:
        # One that is gone, or over just now, stays as it is.
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
    ) -> Run:
        """Write where the nodes and with them the run stand now; returns the run."""
        changed = [(old, nodes[old.name]) for old in before if nodes[old.name] != old]
        states = {name: node.state for name, node in nodes.items()}
        status = rules.run_status(graph, states, is_cancelled=is_cancelled)
        if not changed and status is run.status:
            return run
        after = replace(
            run,
            status=status,
            reason=reason,
            updated_at_ms=self._now_ms,
            completed_at_ms=self._now_ms if status.is_final else None,
        )
        self._tx.runs.save_nodes(after, changed)
        self._tx.runs.save(run, after)
        for old, node in changed:
            if old.state is NodeState.ACTIVE and node.state is not NodeState.ACTIVE:
                self._free(old)
        if after.is_final and run.status is RunStatus.RUNNING and run.group_key is not None:
            self._freed.append(partial(self._tx.groups.next_run, run.group_key))
        return after

    def _free(self, node: Node) -> None:
        if node.group_key is not None:
            self._freed.append(partial(self._tx.groups.run_of_next_node, node.group_key))


def cancel_row(tx: Records, job_id: str, *, at_ms: int, reason: str = "cancelled") -> Job:
    """Write that an active job is cancelled; raises ``IllegalTransition`` if it is not active."""
    return tx.jobs.transition(
        job_id, JobStatus.CANCELLED, now_ms=at_ms, only_from=ACTIVE, completed_at_ms=at_ms, error=reason
    )


def _group(key: str) -> str:
    return f"the concurrency group {group_name(key)}"


def graph_of(nodes: list[Node]) -> Graph:
    """Return the graph of a run, with as much of each job as its dependents are judged by."""
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
    """Return a node as its newest job says."""
    if node.state is not NodeState.ACTIVE:
        return node
    if node.job_status is None:
        return replace(node, state=NodeState.FAILED, reason="its job was removed")
    return replace(node, state=NodeState.of_job(node.job_status))


def _make_job(tx: Records, run: Run, node: Node, *, now_ms: int) -> Job:
    """Insert the job of a node that is ready; raises ``InvalidInput`` where there cannot be such a job."""
    job = Job(
        job_id=new_id(),
        user_id=run.user_id,
        definition=_definition(tx, run, node, now_ms=now_ms),
        status=JobStatus.SUBMITTED,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        rerun_of=node.job_id,
        run_id=run.run_id,
        node=node.name,
    )
    tx.jobs.add(job, next_submit_at_ms=now_ms + SUBMIT_GRACE_MS)
    return job


def _definition(tx: Records, run: Run, node: Node, *, now_ms: int) -> JobDefinition:
    template = tx.runs.template(run.run_id, node.name)
    needed = _Needed(tx, run.run_id)
    secrets = RunSecrets(tx, run, now_ms=now_ms)

    def value_of(reference: Reference) -> str:
        is_secret = reference.source == "secret"
        return secrets.value(reference.name) if is_secret else needed.value_of(reference)

    filled = fill(template, value_of)
    variables = _variables(run, node) | filled.environment | {"REACTORCIDE_RUN_ID": run.run_id}
    size_bytes = len(filled.fields["job_command"].encode())
    size_bytes += sum(len(name) + len(value.encode()) + 2 for name, value in variables.items())
    if len(variables) > MAX_VARIABLES:
        raise InvalidInput(f"with those of the run it has more than {MAX_VARIABLES} variables")
    if size_bytes >= MAX_EXEC_BYTES:
        raise InvalidInput("with those of the run its variables and its command are 1 MiB or more")
    return JobDefinition(
        **filled.fields,
        **_source(tx, run, template),
        job_env_vars=variables,
        services=filled.services,
        secret_env_vars=tuple(
            dict.fromkeys((*guess(variables, filled.services), *variables_with_secrets(template)))
        ),
        # A run that an older version has started has none.
        masked=secrets.masked(template.get("secrets", ())),
    )


def _source(tx: Records, run: Run, template: JobTemplate) -> dict[str, Any]:
    if not template["checkout"]:
        return {"source_type": "copy"}
    if run.source.source_id is not None:
        return {"source_type": "copy", "source_id": run.source.source_id}
    return {
        "source_type": "git",
        "git_url": tx.runs.git_url(run.run_id),
        # What the run was made of, wherever its branch is by now.
        "git_ref": run.sha,
        "git_submodules": template["submodules"],
    }


def _variables(run: Run, node: Node) -> dict[str, str]:
    """Return the variables that a run gives its jobs."""
    url = run.source.git_url
    found = {
        "WORKFLOW": run.workflow_name,
        "NODE": node.name,
        "SHA": run.sha,
        "SOURCE_URL": None if url is None else redacted_url(url),
        **{variable: run.event.get(name) for name, variable in _EVENT_VARIABLES.items()},
    }
    return {f"REACTORCIDE_{name}": value for name, value in found.items() if value}


class _Needed:
    """What the jobs of a run have written, read when it is asked for."""

    def __init__(self, tx: Records, run_id: str) -> None:
        self._tx = tx
        self._run_id = run_id
        self._written: dict[str, Values] = {}

    def value_of(self, reference: Reference) -> str:
        """Return the output that a reference stands for; raises ``InvalidInput`` where it cannot be had."""
        job, key = reference.output
        if job not in self._written:
            # It has no matrix, and so one node of its own name.
            found = self._tx.runs.outputs(self._run_id, [job])
            self._written[job] = found.get(job, Outputs()).all
        if key not in self._written[job]:
            raise InvalidInput(f"{reference} cannot be had: {job} wrote no {key}")
        value = self._written[job][key]
        if value is None:
            raise InvalidInput(f"{reference} is refused: its value has a secret in it")
        return value
