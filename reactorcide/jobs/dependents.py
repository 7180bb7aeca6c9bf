"""What becomes of the nodes of a run once one of its jobs has ended, all in one transaction."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reactorcide.domain.definition import MAX_EXEC_BYTES, MAX_VARIABLES, JobDefinition
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.domain.outputs import Outputs, Values
from reactorcide.domain.runs import JobTemplate, Node, NodeState, Run, RunStatus
from reactorcide.domain.secrets import guess, redacted_url
from reactorcide.jobs.submit import SUBMIT_GRACE_MS
from reactorcide.jobs.templates import fill
from reactorcide.lib.ids import new_id
from reactorcide.store import Records
from reactorcide.workflows import resolve as rules
from reactorcide.workflows.graph import Graph
from reactorcide.workflows.graph import Node as GraphNode
from reactorcide.workflows.model import Condition
from reactorcide.workflows.model import Job as WorkflowJob
from reactorcide.workflows.references import Reference

_EVENT_VARIABLES = {
    "name": "EVENT_TYPE",
    "branch": "BRANCH",
    "tag": "TAG",
    "number": "PR_NUMBER",
    "base_branch": "PR_BASE_REF",
    "actor": "HEAD_ACTOR",
    "project": "PROJECT",
}


def resolve(tx: Records, run_id: str | None, *, now_ms: int) -> list[Job]:
    """Bring a run up to date with its jobs, and return the jobs that were made for nodes that are ready.

    The caller has locked the run before it changed any of its jobs, and gives the jobs to the queue once all
    is committed. Repeating it is harmless. A run that is over, or gone, stays as it is; so does ``None``.
    """
    run = None if run_id is None else tx.runs.lock(run_id)
    if run is None or run.is_final:
        return []
    before = tx.runs.nodes(run.run_id)
    nodes = {node.name: _as_its_job(node) for node in before}
    graph = graph_of(before)
    made: list[Job] = []
    is_settled = False
    while not is_settled:
        is_settled = True
        found = rules.resolve(graph, {name: node.state for name, node in nodes.items()})
        for name, change in found.changes.items():
            nodes[name] = replace(nodes[name], state=change.state, reason=change.reason)
        for name in found.ready:
            try:
                job = _make_job(tx, run, nodes[name], now_ms=now_ms)
            except InvalidInput as exc:
                # Others may wait for this one.
                is_settled = False
                nodes[name] = replace(nodes[name], state=NodeState.FAILED, reason=str(exc))
                continue
            made.append(job)
            nodes[name] = replace(
                nodes[name],
                state=NodeState.ACTIVE,
                reason=None,
                job_id=job.job_id,
                job_status=job.status,
                jobs=nodes[name].jobs + 1,
            )
    save(tx, run, graph, before, nodes, now_ms=now_ms)
    return made


def save(
    tx: Records,
    run: Run,
    graph: Graph,
    before: list[Node],
    nodes: Mapping[str, Node],
    *,
    now_ms: int,
    reason: str | None = None,
    is_cancelled: bool = False,
) -> Run:
    """Write where the nodes and with them the run stand now; returns the run."""
    changed = [(old, nodes[old.name]) for old in before if nodes[old.name] != old]
    if not changed:
        return run
    states = {name: node.state for name, node in nodes.items()}
    status = rules.run_status(graph, states, is_cancelled=is_cancelled)
    after = replace(
        run,
        status=status,
        reason=reason,
        updated_at_ms=now_ms,
        completed_at_ms=None if status is RunStatus.RUNNING else now_ms,
    )
    tx.runs.save_nodes(after, changed)
    tx.runs.save(run, after)
    return after


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
        definition=_definition(tx, run, node),
        status=JobStatus.SUBMITTED,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        rerun_of=node.job_id,
        run_id=run.run_id,
        node=node.name,
    )
    tx.jobs.add(job, next_submit_at_ms=now_ms + SUBMIT_GRACE_MS)
    return job


def _definition(tx: Records, run: Run, node: Node) -> JobDefinition:
    template = tx.runs.template(run.run_id, node.name)
    filled = fill(template, _Needed(tx, run.run_id).value_of)
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
        secret_env_vars=guess(variables, filled.services),
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
