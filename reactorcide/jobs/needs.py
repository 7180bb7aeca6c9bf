"""What a job of a run is given of the jobs before it."""

from reactorcide.domain.jobs import Job
from reactorcide.domain.runs import Node, RunFiles
from reactorcide.jobs import StoredJobs


def run_files(context: StoredJobs, job: Job) -> RunFiles | None:
    """Return what a job gets of its run; ``None`` where it is of none.

    While it runs nothing of it can change: only a run that is over is repeated.
    """
    if job.run_id is None:
        return None
    runs = context.store.runs
    nodes = runs.nodes(job.run_id)
    (node,) = (item for item in nodes if item.name == job.node)
    variables = runs.variables(job.run_id)
    for name, written in runs.outputs(job.run_id, _before(node, nodes)).items():
        # As the first Reactorcide has it: what is written as a var, and all else by the name of its job.
        found = {**written.variables, **{f"{name}.{key}": value for key, value in written.values.items()}}
        variables |= {key: value for key, value in found.items() if value is not None}
    return RunFiles(variables=variables)


def _before(node: Node, nodes: list[Node]) -> set[str]:
    """Return the names of the jobs that are over before a node starts."""
    names = set(node.needs)
    # Each comes after those that it needs.
    for item in reversed(nodes):
        if item.job_name in names:
            names.update(item.needs)
    return names
