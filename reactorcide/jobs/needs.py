"""The outputs and artifacts that a job of a run gets from the jobs that it needs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.errors import JobFailed, ObjectNotFound
from reactorcide.domain.jobs import Job
from reactorcide.domain.runs import Node, RunFiles
from reactorcide.jobs import StoredJobs, read
from reactorcide.lib.records import record
from reactorcide.lib.sizes import format_size
from reactorcide.lib.tar import MAX_NAME_BYTES, Entry
from reactorcide.workflows.graph import with_needs

_MAX_OUTPUTS_BYTES = 4 << 20
"""Maximum size of the outputs of all needed jobs, which are in memory during the preparation."""


def run_files(context: StoredJobs, job: Job) -> RunFiles | None:
    """Return the files that a job gets from its run; ``None`` for a job without a run.

    They cannot change while the job runs: only a run that has ended can be repeated. Raises ``JobFailed``,
    also while the artifacts are read, for artifacts that a needed job has not stored, or that are deleted.
    """
    if job.run_id is None:
        return None
    runs = context.store.runs
    nodes = runs.nodes(job.run_id)
    (node,) = (item for item in nodes if item.name == job.node)
    variables = runs.variables(job.run_id)
    before = with_needs(node.needs, ((item.job_name, item.needs) for item in reversed(nodes)))
    if runs.outputs_bytes(job.run_id, before) > _MAX_OUTPUTS_BYTES:
        limit = format_size(_MAX_OUTPUTS_BYTES)
        raise JobFailed(f"the jobs before it have written more than {limit} of outputs together; write less")
    for name, written in runs.outputs(job.run_id, before).items():
        # As in the original Reactorcide: outputs written as vars, and all others below the name of their job.
        outputs = {**written.variables, **{f"{name}.{key}": value for key, value in written.values.items()}}
        variables |= {key: value for key, value in outputs.items() if value is not None}
    template = runs.template(job.run_id, node.name)
    # A run of an older version has none.
    sources = template.get("artifacts_from", ())
    producers = [_producer(context, item) for item in nodes if item.job_name in sources]
    run = runs.get(job.run_id)
    return RunFiles(
        variables=variables,
        artifacts=_entries(context, producers) if producers else None,
        # For all other runs the workflow files are in the source.
        ci_sha=None if run.is_trusted else run.event.get("base_sha"),
        user=template.get("user"),
    )


@record
class _Producer:
    """A node whose artifacts a job gets, and their directory."""

    node: Node
    job: Job
    artifacts: Sequence[Artifact]
    directory: str


def _producer(context: StoredJobs, node: Node) -> _Producer:
    if node.job_id is None:
        raise JobFailed(f"artifacts_from: {node.name} did not run, so it has no artifacts")
    job = context.store.jobs.find(node.job_id)
    if job is None or job.deleted:
        raise _deleted(node)
    listing = read.artifacts(context, job)
    if listing.truncated:
        raise JobFailed(f"artifacts_from: not all artifacts of {node.name} are stored; its log says why")
    if not listing.artifacts:
        raise JobFailed(f"artifacts_from: {node.name} has no artifacts")
    return _Producer(node, job, listing.artifacts, _directory(node))


def _directory(node: Node) -> str:
    """Return the path below ``NEEDS_DIR`` of the artifacts of a node; no two nodes have the same."""
    if node.name == node.job_name:
        return node.job_name
    combination = node.name[len(node.job_name) + len(" (") : -len(")")]
    name = combination.replace("%", "%25").replace("/", "%2F")
    # Names that are not directory names.
    name = f"%{name}" if name in ("", ".", "..") else name
    if len(name.encode()) > MAX_NAME_BYTES:
        problem = f"it has more than {MAX_NAME_BYTES} bytes"
        raise JobFailed(f"artifacts_from: {combination} cannot be the name of a directory: {problem}")
    return f"{node.job_name}/{name}"


def _entries(context: StoredJobs, producers: Sequence[_Producer]) -> Iterator[Entry]:
    for item in producers:
        try:
            for entry in read.artifact_entries(context, item.job, item.artifacts):
                yield replace(entry, path=f"{item.directory}/{entry.path}")
        except ObjectNotFound as exc:
            raise _deleted(item.node) from exc


def _deleted(node: Node) -> JobFailed:
    return JobFailed(f"artifacts_from: the artifacts of {node.name} have been deleted")
