"""Expand the jobs of a workflow into nodes: one for each job, or for each combination of its matrix."""

from collections.abc import Collection, Iterator
from collections.abc import Mapping as AbstractMapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from reactorcide.domain.variables import MAX_EXEC_BYTES, exec_bytes
from reactorcide.workflows.files import WrittenJob, WrittenWorkflow, overlaid
from reactorcide.workflows.graph import Node
from reactorcide.workflows.keys import JOB, MAX_JOBS
from reactorcide.workflows.kinds import Reader, Written
from reactorcide.workflows.matrix import Matrix
from reactorcide.workflows.model import Condition, Job
from reactorcide.workflows.nodes import Scalar, Sequence
from reactorcide.workflows.problems import Problems, quoted
from reactorcide.workflows.references import Template

MAX_NODES = MAX_JOBS
_MATRIX_KEYS = ("matrix", "for_each", "item_var")
_READ_FIRST = (*_MATRIX_KEYS, "needs")
"""Keys of a job that say how its other keys are read."""
_OF_MATRIX = "${matrix."


def expand(workflow: WrittenWorkflow, reader: Reader) -> list[Node]:
    """Return the nodes of all jobs, each after those that it needs."""
    names = {entry.name: entry for entry in workflow.entries}
    has_matrix = {entry.name for entry in workflow.entries if {"matrix", "for_each"} & entry.written.keys()}
    by_job: dict[str, list[Node]] = {}
    count = 0
    for entry in workflow.entries:
        read = _read_job(entry, names, has_matrix, workflow.header.get("environment"), reader)
        by_job[entry.name] = list(read)
        count += len(by_job[entry.name])
        if count > MAX_NODES:
            reader.error(entry.place, f"with this job there are more than {MAX_NODES} nodes in a run")
            return []
    return [node for name in _in_order(by_job, names, reader.problems) for node in by_job[name]]


def _in_order(
    by_job: AbstractMapping[str, Collection[Node]],
    entries: AbstractMapping[str, WrittenJob],
    problems: Problems,
) -> list[str]:
    needs = {
        name: [need for node in list(nodes)[:1] for need in node.job.needs] for name, nodes in by_job.items()
    }
    while True:
        try:
            return list(TopologicalSorter(needs).static_order())
        except CycleError as exc:
            # It lists each before the one that needs it.
            cycle = exc.args[1][::-1]
        path = " → ".join(cycle[:10] + ["…"] * (len(cycle) > 10))
        entry = entries[cycle[0]]
        needs_written = entry.written.get("needs")
        place = needs_written.node.place if needs_written else entry.place
        problems.error(place, f"these jobs wait for each other: {path}")
        # Without these jobs there may be another cycle.
        needs |= {name: [] for name in cycle}


def _read_job(
    entry: WrittenJob,
    names: AbstractMapping[str, WrittenJob],
    has_matrix: Collection[str],
    environment: Written | None,
    reader: Reader,
) -> Iterator[Node]:
    """Yield the nodes of one job."""
    written = entry.written
    if environment is not None:
        written = overlaid({"environment": environment}, written)
    if "command" not in written:
        reader.error(entry.place, f"the job {quoted(entry.name)} needs the key command, with a script")
    needs = _needs(written.get("needs"), names, reader)
    scope = replace(reader.scope, needs=needs, matrix_jobs=has_matrix)
    reader = replace(reader, scope=scope)
    matrix = _matrix(written, entry, reader)
    rest = {key: value for key, value in written.items() if key not in _READ_FIRST}
    if matrix is None:
        yield _node(entry, entry.name, _job(JOB.values(rest, reader), needs, rest, reader))
        return
    varying = {key: value for key, value in rest.items() if value.node.mentions(_OF_MATRIX)}
    fixed = JOB.values({key: value for key, value in rest.items() if key not in varying}, reader)
    if not matrix.combinations:
        # The matrix is wrong. What does not depend on it is checked nevertheless.
        yield _node(entry, entry.name, _job(fixed, needs, rest, reader))
    for label, combination in matrix.combinations.items():
        reader = replace(reader, scope=replace(scope, matrix=combination))
        values = {**fixed, **JOB.values(varying, reader)}
        if matrix.item_var is not None:
            item = Template((combination[matrix.item_var],))
            values["environment"] = {**values.get("environment", {}), matrix.item_var: item}
        job = _job(values, needs, rest, reader)
        name = f"{entry.name} ({label})"
        if len(name) > 255:
            reader.error(
                entry.place,
                f"the name {quoted(name)} has more than 255 characters; shorten the matrix' values",
            )
        yield _node(entry, name, job, combination, matrix.max_parallel)


def _node(
    entry: WrittenJob,
    name: str,
    job: Job,
    combination: AbstractMapping[str, str] | None = None,
    max_parallel: int | None = None,
) -> Node:
    return Node(
        name=name, job_name=entry.name, job=job, combination=combination or {}, max_parallel=max_parallel
    )


def _needs(
    written: Written | None, names: AbstractMapping[str, WrittenJob], reader: Reader
) -> tuple[str, ...]:
    if written is None:
        return ()
    needs = JOB.values({"needs": written}, reader).get("needs", ())
    for need in needs:
        if need not in names:
            place = written.node.place
            if isinstance(written.node, Sequence):
                items = [
                    item for item in written.node.items if isinstance(item, Scalar) and item.text == need
                ]
                place = items[0].place if items else place
            reader.error(place, f"{written.key}: there is no job {quoted(need)}", got=need, known=names)
    return tuple(dict.fromkeys(need for need in needs if need in names))


def _matrix(written: AbstractMapping[str, Written], entry: WrittenJob, reader: Reader) -> Matrix | None:
    """Return the combinations of a job; ``None`` if it has no matrix."""
    keys = {key: written[key] for key in _MATRIX_KEYS if key in written}
    if "matrix" in keys and len(keys) > 1:
        reader.error(entry.place, "matrix and for_each are two ways to say the same; give one of them")
    if "item_var" in keys and "for_each" not in keys:
        reader.error(keys["item_var"].node.place, "item_var belongs to for_each, which is missing")
    values = JOB.values(keys, reader)
    if "matrix" in keys:
        return values.get("matrix") or Matrix()
    if "for_each" in keys:
        item_var = values.get("item_var")
        axis = item_var or "item"
        items = values.get("for_each", ())
        return Matrix({value: {axis: value} for value in items}, item_var=item_var)
    return None


def _job(
    values: dict[str, Any],
    needs: tuple[str, ...],
    written: AbstractMapping[str, Written],
    reader: Reader,
) -> Job:
    """Make a job of the values of its keys; what only the values together can be wrong in is an error."""
    values = {
        **values,
        "needs": needs,
        "condition": Condition(values.get("condition", Condition.ALL_SUCCESS)),
    }
    values.setdefault("command", "")
    for limit, of_resources in zip(
        ("cpu_limit", "memory_limit_bytes"), values.pop("resources", (None, None)), strict=True
    ):
        if of_resources is not None:
            if limit in values:
                reader.error(
                    written["resources"].node.place, f"the limit is given twice, in resources and in {limit}"
                )
            values[limit] = of_resources
    if not needs and values["condition"] is Condition.ANY_FAILED:
        reader.error(
            written["condition"].node.place, "the job would never run: any_failed, and it needs no job"
        )
    size_bytes = len(values["command"].encode(errors="replace")) + exec_bytes(values.get("environment", {}))
    if size_bytes >= MAX_EXEC_BYTES:
        place = written["environment"].node.place
        reader.error(
            place, f"the environment and the command together must stay below {MAX_EXEC_BYTES >> 20} MiB"
        )
    for name in values.get("artifacts_from", ()):
        if name not in needs:
            message = f"artifacts_from: {quoted(name)} is not in needs"
            reader.error(written["artifacts_from"].node.place, message, got=name, known=needs)
    return Job(**values)
