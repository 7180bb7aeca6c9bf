"""A workflow: read from its file and those that it names, checked, and expanded for an event.

``check`` reads all files of a repository. ``Definition.expand`` makes the graph of a run of one of them. Both
are one and the same reading: with no event, what depends on one stays open.
"""

import re
from collections.abc import Collection, Iterator
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from reactorcide.domain.definition import MAX_EXEC_BYTES
from reactorcide.workflows.events import ANY_EVENT, ANY_PATHS, Event, EventName, Paths, Trigger
from reactorcide.workflows.graph import EMPTY, Graph
from reactorcide.workflows.graph import Node as GraphNode
from reactorcide.workflows.keys import (
    ENTRY,
    JOB,
    JOB_FILE,
    JOB_NAME,
    JOB_NAME_LIKE,
    MAX_JOBS,
    WORKFLOW,
)
from reactorcide.workflows.kinds import Object, Reader, Written
from reactorcide.workflows.matrix import Matrix
from reactorcide.workflows.model import Condition, Job
from reactorcide.workflows.nodes import Mapping, Node, Scalar, Sequence, compose
from reactorcide.workflows.problems import Place, Problem, Problems, WorkflowError, shown
from reactorcide.workflows.references import Scope, Template

WORKFLOWS_DIR = ".reactorcide/workflows"
JOBS_DIR = ".reactorcide/jobs"
MAX_FILES = 100
MAX_NODES = MAX_JOBS

_YAML = re.compile(r"[^/]+\.ya?ml")
_MATRIX_KEYS = ("matrix", "for_each", "item_var")
_READ_FIRST = (*_MATRIX_KEYS, "needs")
"""Keys of a job that say how its other keys are read."""
_OF_MATRIX = "${matrix."


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One workflow, as its file says it."""

    id: str
    name: str
    file: str
    problems: tuple[Problem, ...] = ()
    """By place; with an error the workflow cannot run."""
    description: str = ""
    graph: Graph = EMPTY
    """Its nodes, with what depends on an event left open."""
    trigger: Trigger = ANY_EVENT
    paths: Paths = ANY_PATHS
    _source: "_Source" = field(repr=False)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What keeps it from running."""
        return tuple(problem for problem in self.problems if not problem.is_warning)

    def refusal(self, event: Event, changed: Collection[str] | None) -> str | None:
        """Return in a phrase why the event does not start a run; ``None`` where it does.

        ``changed`` are the files that differ, or ``None`` where that is not known. Whoever starts it by hand
        has named it, so that a manual event always does.
        """
        if event.name is EventName.MANUAL:
            return None
        refusal = self.trigger.refusal(event) or self.paths.refusal(changed)
        if refusal is not None or not self._source.is_of_job_files:
            return refusal
        starts = None in _refusals(self.graph, event, changed)
        return None if starts else "none of its jobs starts on this"

    def expand(
        self,
        event: Event,
        changed: Collection[str] | None = None,
        variables: AbstractMapping[str, str] | None = None,
    ) -> Graph:
        """Return the graph of a run for an event; ``variables`` take the place of ``vars`` in the file.

        Raises ``WorkflowError`` with everything that is wrong, each with its place.
        """
        problems = Problems()
        definition = _define(self._source, problems, event, variables or {})
        if problems.has_errors:
            raise WorkflowError(definition.problems)
        graph = definition.graph
        refusals = zip(graph.nodes, _refusals(graph, event, changed), strict=True)
        return replace(graph, nodes=tuple(replace(node, skipped=refusal) for node, refusal in refusals))


def _refusals(graph: Graph, event: Event, changed: Collection[str] | None) -> list[str | None]:
    """Return for each node in a phrase why the event does not start it; ``None`` where it does."""
    filters = [(node.job.trigger, node.job.paths) for node in graph.nodes]
    # The combinations of a matrix mostly have the same, and the changed files may be many.
    found = {
        (trigger, paths): trigger.refusal(event) or paths.refusal(changed) for trigger, paths in set(filters)
    }
    return [found[one] for one in filters]


def check(files: AbstractMapping[str, str | bytes], repository: str) -> tuple[Definition, ...]:
    """Return the workflows of a repository, with all that is wrong with each of them.

    ``files`` has the content of the files below ``.reactorcide/workflows`` and ``.reactorcide/jobs`` by path.
    Where the first has none, those of the second are one workflow that is named after ``repository``.
    """
    paths = sorted(files)
    workflows = [path for path in paths if _is_file_of(path, WORKFLOWS_DIR)]
    jobs = {path: files[path] for path in paths if _is_file_of(path, JOBS_DIR)}
    for directory, found in ((WORKFLOWS_DIR, workflows), (JOBS_DIR, list(jobs))):
        if len(found) > MAX_FILES:
            problem = Problem(Place(directory), f"there are {len(found)} files; at most {MAX_FILES} are read")
            source = _Source(directory)
            return (Definition(id="", name=directory, file=directory, problems=(problem,), _source=source),)
    job_files = _JobFiles(jobs)
    if not workflows:
        return (_define(_of_job_files(job_files, repository), Problems()),) if jobs else ()
    definitions: list[Definition] = []
    by_id: dict[str, str] = {}
    for path in workflows:
        problems = Problems()
        definition = _define(_of_file(path, files[path], job_files, problems), problems)
        first = by_id.setdefault(definition.id, path)
        if first != path and definition.id:
            message = f"the id {definition.id} is also that of {first}; give one of them another id"
            doubled = Problem(Place(path), message)
            definition = replace(definition, problems=tuple(sorted((*definition.problems, doubled))))
        definitions.append(definition)
    return tuple(definitions)


def _is_file_of(path: str, directory: str) -> bool:
    return path.startswith(directory + "/") and _YAML.fullmatch(path[len(directory) + 1 :]) is not None


@dataclass(slots=True)
class _Entry:
    """A job as it is written: its keys, from all places where they may stand."""

    name: str
    place: Place
    written: dict[str, Written]


@dataclass(slots=True)
class _Source:
    """A workflow as it is written."""

    file: str
    header: dict[str, Written] = field(default_factory=dict)
    place: Place | None = None
    """``None`` where the file could not be read."""
    entries: list[_Entry] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    repository: str = ""
    """What the workflow of all job files is named after."""

    @property
    def is_of_job_files(self) -> bool:
        """Tell whether it has no file of its own."""
        return bool(self.repository)


class _JobFiles:
    """The files of ``jobs/``, each read once and only when it is named."""

    def __init__(self, files: AbstractMapping[str, str | bytes]) -> None:
        self.paths = list(files)
        self._files = files
        self._read: dict[str, tuple[Place, dict[str, Written], tuple[Problem, ...]]] = {}

    def read(self, path: str) -> tuple[Place, dict[str, Written], tuple[Problem, ...]]:
        """Return the place of a file's first value, its keys, and what is wrong with it."""
        if path not in self._read:
            problems = Problems()
            root = compose(path, self._files[path], problems)
            written = {}
            if isinstance(root, Mapping):
                written = _flattened(JOB_FILE, root, problems)
            elif not problems.has_errors:
                problems.error(Place(path), "a job file is a mapping, with name and job")
            self._read[path] = (root.place if root else Place(path), written, problems.sorted())
        return self._read[path]

    def find(self, name: str) -> str | None:
        """Return the path that a ``job_file`` means."""
        return next((path for path in (name, f"{JOBS_DIR}/{name}") if path in self._files), None)


def _of_file(path: str, content: str | bytes, job_files: _JobFiles, problems: Problems) -> _Source:
    root = compose(path, content, problems)
    if not isinstance(root, Mapping):
        if not problems.has_errors:
            problems.error(Place(path), "a workflow file is a mapping, with name, on and jobs")
        return _Source(path, problems=problems.sorted())
    header = WORKFLOW.written(root, problems)
    WORKFLOW.require(header, root.place, problems)
    entries = []
    others: dict[Problem, None] = {}
    for name, place, node in _jobs(header.get("jobs"), problems):
        written = _flattened(ENTRY, node, problems)
        written.pop("name", None)
        job_file = written.pop("job_file", None)
        if job_file is not None:
            base, of_file = _base(job_file, job_files, problems)
            others.update(dict.fromkeys(of_file))
            written = _overlaid(base, written)
        entries.append(_Entry(name, place, written))
    return _Source(path, header, root.place, entries, (*problems.sorted(), *others))


def _base(
    job_file: Written, job_files: _JobFiles, problems: Problems
) -> tuple[dict[str, Written], tuple[Problem, ...]]:
    if not isinstance(job_file.node, Scalar):
        problems.error(job_file.node.place, "job_file takes the name of a file")
        return {}, ()
    path = job_files.find(job_file.node.text)
    if path is None:
        known = [known.rpartition("/")[2] for known in job_files.paths]
        message = f"there is no file {shown(job_file.node.text)} in {JOBS_DIR}"
        problems.error(job_file.node.place, message, got=job_file.node.text, known=known)
        return {}, ()
    _, written, of_file = job_files.read(path)
    # When it starts is for the workflow to say.
    return {key: value for key, value in written.items() if key not in ("name", "trigger", "paths")}, of_file


def _of_job_files(job_files: _JobFiles, repository: str) -> _Source:
    problems = Problems()
    entries: list[_Entry] = []
    others: dict[Problem, None] = {}
    names: dict[str, Place] = {}
    for path in job_files.paths:
        place, written, of_file = job_files.read(path)
        others.update(dict.fromkeys(of_file))
        name = written.pop("name", None)
        if name is None or not isinstance(name.node, Scalar):
            if not any(problem.place.file == path for problem in of_file):
                problems.error(place, "a job file needs the key name, with the name of the job")
            continue
        if name.node.text in names:
            first = names[name.node.text]
            problems.error(
                name.node.place, f"the job {shown(name.node.text)} is also in {first.file}:{first.line}"
            )
            continue
        names[name.node.text] = name.node.place
        if _is_name(name.node.text, name.node.place, problems):
            entries.append(_Entry(name.node.text, place, written))
    found = (*problems.sorted(), *others)
    return _Source(JOBS_DIR, {}, Place(JOBS_DIR), entries, found, repository=repository or "jobs")


def _jobs(jobs: Written | None, problems: Problems) -> Iterator[tuple[str, Place, Mapping]]:
    """Yield the jobs of a workflow: a mapping by name, or a list of mappings with a name each."""
    if jobs is None:
        return
    named: list[tuple[str, Place, Node]] = []
    if isinstance(jobs.node, Mapping):
        named = [(name, key.place, node) for name, key, node in jobs.node]
    elif isinstance(jobs.node, Sequence):
        for item in jobs.node.items:
            entry = item.entries.get("name") if isinstance(item, Mapping) else None
            if entry is None or not isinstance(entry[1], Scalar):
                problems.error(item.place, "in a list of jobs each is a mapping that has a name")
            else:
                named.append((entry[1].text, entry[1].place, item))
    else:
        problems.error(jobs.node.place, "jobs takes a mapping, with a job by name")
        return
    if not named:
        problems.error(jobs.node.place, "there are no jobs")
    if len(named) > MAX_JOBS:
        problems.error(jobs.node.place, f"there are {len(named)} jobs; at most {MAX_JOBS} are allowed")
        return
    names: set[str] = set()
    for name, place, node in named:
        if name in names:
            problems.error(place, f"there are two jobs {shown(name)}")
        elif not isinstance(node, Mapping):
            problems.error(place, f"the job {shown(name)} takes a mapping, with a command")
        elif _is_name(name, place, problems):
            yield name, place, node
        names.add(name)


def _is_name(name: str, place: Place, problems: Problems) -> bool:
    if re.fullmatch(JOB_NAME, name):
        return True
    problems.error(place, f"{shown(name)} is not {JOB_NAME_LIKE}")
    return False


def _flattened(kind: Object[Any], node: Mapping, problems: Problems) -> dict[str, Written]:
    """Return the keys that stand flat together with those below ``job``."""
    written = kind.written(node, problems)
    nested = written.pop("job", None)
    if nested is None:
        return written
    if not isinstance(nested.node, Mapping):
        problems.error(nested.node.place, "job takes a mapping")
        return written
    inner = JOB.written(nested.node, problems)
    for key in inner.keys() & written.keys() - {"environment"}:
        line = written[key].node.place.line
        problems.error(inner[key].node.place, f"{inner[key].key} is given twice, also in line {line}")
    return _overlaid(written, inner)


def _overlaid(base: AbstractMapping[str, Written], over: AbstractMapping[str, Written]) -> dict[str, Written]:
    """Return the keys of both, ``over`` first; environments are merged."""
    merged = {**base, **over}
    below, above = base.get("environment"), over.get("environment")
    if below and above and isinstance(below.node, Mapping) and isinstance(above.node, Mapping):
        entries = {**below.node.entries, **above.node.entries}
        merged["environment"] = Written(above.key, Mapping(above.node.place, entries))
    return merged


def _define(
    source: _Source,
    problems: Problems,
    event: Event | None = None,
    variables: AbstractMapping[str, str] | None = None,
) -> Definition:
    """Read a workflow; ``problems`` are those of its own file, and get what is found here."""
    problems.add(source.problems)
    if source.place is None:
        return Definition(
            id=_slug(source.file),
            name=source.file,
            file=source.file,
            problems=problems.sorted(),
            _source=source,
        )
    reader = Reader(problems, Scope(event=event))
    # The other keys may refer to them.
    of_vars = {key: value for key, value in source.header.items() if key == "vars"}
    declared = WORKFLOW.values(of_vars, reader).get("vars", {})
    for name in variables or {}:
        if name not in declared:
            problems.error(
                source.place, f"the workflow has no {shown(name)} in vars", got=name, known=declared
            )
    reader = replace(reader, scope=replace(reader.scope, vars={**declared, **(variables or {})}))
    header = WORKFLOW.values(
        {key: value for key, value in source.header.items() if key not in of_vars}, reader
    )
    trigger = header.get("trigger", ANY_EVENT)
    nodes = _nodes(source, reader)
    if source.is_of_job_files:
        for entry in source.entries:
            _check_events(entry, problems)
        manual = Trigger((EventName.MANUAL,))
        nodes = [
            node
            if node.job.trigger.events is not None
            else replace(node, job=replace(node.job, trigger=manual))
            for node in nodes
        ]
        events = {event: None for node in nodes for event in node.job.trigger.events or ()}
        trigger = Trigger(tuple(events))
    else:
        _check_triggers(nodes, trigger, source, problems)
    name = header.get("name") or source.repository or source.file
    workflow_id = header.get("id") or _slug(source.repository or source.file)
    if not workflow_id:
        problems.error(source.place, "no id can be made of the file's name; give the workflow an id")
    return Definition(
        id=workflow_id,
        name=name,
        file=source.file,
        problems=problems.sorted(),
        description=header.get("description", ""),
        graph=Graph(tuple(nodes), header.get("concurrency")),
        trigger=trigger,
        paths=header.get("paths", ANY_PATHS),
        _source=source,
    )


def _slug(path: str) -> str:
    stem = re.sub(r"\.ya?ml$", "", path.rpartition("/")[2])
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:63].strip("-")


def _check_events(entry: _Entry, problems: Problems) -> None:
    """A job file's triggers are those of a workflow: without events it would never start."""
    trigger = entry.written.get("trigger")
    if trigger and isinstance(trigger.node, Mapping) and "events" not in trigger.node.entries:
        problems.error(trigger.node.place, f"{trigger.key} needs the key events")


def _check_triggers(
    nodes: Collection[GraphNode], trigger: Trigger, source: _Source, problems: Problems
) -> None:
    if trigger.events is None:
        return
    jobs = {node.job_name: node.job for node in nodes}
    for entry in source.entries:
        job = jobs.get(entry.name)
        if job is None or job.trigger.events is None or "trigger" not in entry.written:
            continue
        if not {*trigger.events, EventName.MANUAL} & set(job.trigger.events):
            message = f"the job would never run: the workflow starts on {', '.join(trigger.events)}"
            problems.error(entry.written["trigger"].node.place, message)


def _nodes(source: _Source, reader: Reader) -> list[GraphNode]:
    """Return the nodes of all jobs, each after those that it needs."""
    names = {entry.name: entry for entry in source.entries}
    has_matrix = {entry.name for entry in source.entries if {"matrix", "for_each"} & entry.written.keys()}
    by_job: dict[str, list[GraphNode]] = {}
    count = 0
    for entry in source.entries:
        read = _read_job(entry, names, has_matrix, source.header.get("environment"), reader)
        by_job[entry.name] = list(read)
        count += len(by_job[entry.name])
        if count > MAX_NODES:
            reader.error(entry.place, f"with this job there are more than {MAX_NODES} nodes in a run")
            return []
    return [node for name in _in_order(by_job, names, reader.problems) for node in by_job[name]]


def _in_order(
    by_job: AbstractMapping[str, Collection[GraphNode]],
    entries: AbstractMapping[str, _Entry],
    problems: Problems,
) -> list[str]:
    needs = {
        name: [need for node in list(nodes)[:1] for need in node.job.needs] for name, nodes in by_job.items()
    }
    sorter = TopologicalSorter(needs)
    try:
        return list(sorter.static_order())
    except CycleError as exc:
        # It lists each before the one that needs it.
        cycle = exc.args[1][::-1]
        path = " → ".join(cycle[:10] + ["…"] * (len(cycle) > 10))
        entry = entries[cycle[0]]
        needs_written = entry.written.get("needs")
        place = needs_written.node.place if needs_written else entry.place
        problems.error(place, f"these jobs wait for each other: {path}")
        return list(by_job)


def _read_job(
    entry: _Entry,
    names: AbstractMapping[str, _Entry],
    has_matrix: Collection[str],
    environment: Written | None,
    reader: Reader,
) -> Iterator[GraphNode]:
    """Yield the nodes of one job."""
    written = entry.written
    if environment is not None:
        written = _overlaid({"environment": environment}, written)
    if "command" not in written:
        reader.error(entry.place, f"the job {shown(entry.name)} needs the key command, with a script")
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
                f"the name {shown(name)} has more than 255 characters; shorten the matrix' values",
            )
        yield _node(entry, name, job, combination, matrix.max_parallel)


def _node(
    entry: _Entry,
    name: str,
    job: Job,
    combination: AbstractMapping[str, str] | None = None,
    max_parallel: int | None = None,
) -> GraphNode:
    return GraphNode(
        name=name, job_name=entry.name, job=job, combination=combination or {}, max_parallel=max_parallel
    )


def _needs(written: Written | None, names: AbstractMapping[str, _Entry], reader: Reader) -> tuple[str, ...]:
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
            reader.error(place, f"{written.key}: there is no job {shown(need)}", got=need, known=names)
    return tuple(dict.fromkeys(need for need in needs if need in names))


def _matrix(written: AbstractMapping[str, Written], entry: _Entry, reader: Reader) -> Matrix | None:
    """Return the combinations of a job; ``None`` where it has no matrix."""
    given = {key: written[key] for key in _MATRIX_KEYS if key in written}
    if "matrix" in given and len(given) > 1:
        reader.error(entry.place, "matrix and for_each are two ways to say the same; give one of them")
    if "item_var" in given and "for_each" not in given:
        reader.error(given["item_var"].node.place, "item_var belongs to for_each, which is missing")
    values = JOB.values(given, reader)
    if "matrix" in given:
        return values.get("matrix") or Matrix()
    if "for_each" in given:
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
    size_bytes = len(values["command"].encode(errors="replace")) + sum(
        len(name) + len(str(value).encode()) + 2 for name, value in values.get("environment", {}).items()
    )
    if size_bytes >= MAX_EXEC_BYTES:
        place = written["environment"].node.place
        reader.error(
            place, f"the environment and the command together must stay below {MAX_EXEC_BYTES >> 20} MiB"
        )
    for name in values.get("artifacts_from", ()):
        if name not in needs:
            message = f"artifacts_from: {shown(name)} is not in needs"
            reader.error(written["artifacts_from"].node.place, message, got=name, known=needs)
    return Job(**values)
