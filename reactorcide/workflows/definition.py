"""A workflow: read from its files, checked, and expanded for an event.

``check`` reads all files of a repository. ``Definition.expand`` makes the graph of a run of one of them. Both
read in the same way: without an event, values that depend on one stay open.
"""

import re
from collections.abc import Collection
from collections.abc import Mapping as AbstractMapping
from dataclasses import field, replace

from reactorcide.domain.events import EventName
from reactorcide.lib.records import record
from reactorcide.workflows.events import ANY_EVENT, ANY_PATHS, Event, Paths, Trigger
from reactorcide.workflows.expand import expand
from reactorcide.workflows.files import (
    JOBS_DIR,
    WORKFLOWS_DIR,
    JobFiles,
    WrittenJob,
    WrittenWorkflow,
    is_file_of,
    read_job_files,
    read_workflow,
)
from reactorcide.workflows.graph import EMPTY, Graph, Node
from reactorcide.workflows.keys import WORKFLOW
from reactorcide.workflows.kinds import Reader
from reactorcide.workflows.nodes import Mapping
from reactorcide.workflows.problems import Place, Problem, Problems, WorkflowError, quoted
from reactorcide.workflows.references import Scope

MAX_FILES = 100


@record(kw_only=True)
class Definition:
    """One workflow from its file."""

    id: str
    name: str
    file: str
    problems: tuple[Problem, ...] = ()
    """By place; with an error the workflow cannot run."""
    description: str = ""
    graph: Graph = EMPTY
    """Its nodes; values that depend on an event stay open."""
    trigger: Trigger = ANY_EVENT
    paths: Paths = ANY_PATHS
    _written: WrittenWorkflow = field(repr=False)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The errors that prevent it from running."""
        return tuple(problem for problem in self.problems if not problem.is_warning)

    @property
    def is_readable(self) -> bool:
        """Return whether the file could be read; otherwise its id comes from its name."""
        return self._written.place is not None

    def answers(self, event: Event) -> bool:
        """Return whether it starts on such an event, for any changed files.

        A workflow with an error in its trigger starts on every event, so that the error is seen.
        """
        if event.name is EventName.MANUAL:
            return True
        if not self._written.is_of_job_files:
            return self.trigger.refusal(event) is None
        return bool(self.errors) or any(node.job.trigger.refusal(event) is None for node in self.graph.nodes)

    def refusal(self, event: Event, changed: Collection[str] | None) -> str | None:
        """Return a phrase that says why the event does not start a run; ``None`` if it does.

        ``changed`` are the files that differ, or ``None`` if unknown. A manual event always starts a run,
        because the user has named the workflow.
        """
        if event.name is EventName.MANUAL:
            return None
        refusal = self.trigger.refusal(event) or self.paths.refusal(changed)
        if refusal is not None or not self._written.is_of_job_files:
            return refusal
        starts = None in _refusals(self.graph, event, changed)
        return None if starts else "none of its jobs starts on this"

    def expand(
        self,
        event: Event,
        changed: Collection[str] | None = None,
        variables: AbstractMapping[str, str] | None = None,
        environment: AbstractMapping[str, str] | None = None,
    ) -> Graph:
        """Return the graph of a run for an event; ``variables`` override ``vars`` of the file.

        ``environment`` has the values of ``${env:…}``; without one such a reference stays.

        Raises ``WorkflowError`` with all errors, each with its place.
        """
        problems = Problems()
        definition = _define(self._written, problems, event, variables or {}, environment or {})
        if problems.has_errors:
            raise WorkflowError(definition.problems)
        graph = definition.graph
        refusals = zip(graph.nodes, _refusals(graph, event, changed), strict=True)
        return replace(graph, nodes=tuple(replace(node, skipped=refusal) for node, refusal in refusals))


def _refusals(graph: Graph, event: Event, changed: Collection[str] | None) -> list[str | None]:
    """Return a phrase for each node that says why the event does not start it; ``None`` if it does."""
    filters = [(node.job.trigger, node.job.paths) for node in graph.nodes]
    # The combinations of a matrix usually share the trigger, and there may be many changed files.
    files = {
        (trigger, paths): trigger.refusal(event) or paths.refusal(changed) for trigger, paths in set(filters)
    }
    return [files[one] for one in filters]


def check(files: AbstractMapping[str, str | bytes], repository: str) -> tuple[Definition, ...]:
    """Return the workflows of a repository, each with all its problems.

    ``files`` has the content of the files below ``.reactorcide/workflows`` and ``.reactorcide/jobs`` by path.
    Where the first has none, those of the second are one workflow that is named after ``repository``.
    """
    paths = sorted(files)
    workflows = [path for path in paths if is_file_of(path, WORKFLOWS_DIR)]
    jobs = {path: files[path] for path in paths if is_file_of(path, JOBS_DIR)}
    for directory, read in ((WORKFLOWS_DIR, workflows), (JOBS_DIR, list(jobs))):
        if len(read) > MAX_FILES:
            problem = Problem(Place(directory), f"there are more than {MAX_FILES} files")
            written = WrittenWorkflow(directory)
            return (Definition(id="", name=directory, file=directory, problems=(problem,), _written=written),)
    job_files = JobFiles(jobs)
    if not workflows:
        return (_define(read_job_files(job_files, repository), Problems()),) if jobs else ()
    definitions: list[Definition] = []
    by_id: dict[str, str] = {}
    for path in workflows:
        problems = Problems()
        definition = _define(read_workflow(path, files[path], job_files, problems), problems)
        first = by_id.setdefault(definition.id, path)
        if first != path and definition.id:
            message = f"the id {definition.id} is also that of {first}; give one of them another id"
            doubled = Problem(Place(path), message)
            definition = replace(definition, problems=tuple(sorted((*definition.problems, doubled))))
        definitions.append(definition)
    return tuple(definitions)


def _define(
    workflow: WrittenWorkflow,
    problems: Problems,
    event: Event | None = None,
    variables: AbstractMapping[str, str] | None = None,
    environment: AbstractMapping[str, str] | None = None,
) -> Definition:
    """Read a workflow; ``problems`` are those of its own file, and get what is found here."""
    problems.add(workflow.problems)
    if workflow.place is None:
        return Definition(
            id=_slug(workflow.file),
            name=workflow.file,
            file=workflow.file,
            problems=problems.sorted(),
            _written=workflow,
        )
    reader = Reader(problems, Scope(event=event, env=environment or {}))
    # The other keys may refer to them.
    of_vars = {key: value for key, value in workflow.header.items() if key == "vars"}
    declared = WORKFLOW.values(of_vars, reader).get("vars", {})
    for name in variables or {}:
        if name not in declared:
            problems.error(
                workflow.place, f"the workflow has no {quoted(name)} in vars", got=name, known=declared
            )
    reader = replace(reader, scope=replace(reader.scope, vars={**declared, **(variables or {})}))
    header = WORKFLOW.values(
        {key: value for key, value in workflow.header.items() if key not in of_vars}, reader
    )
    trigger = header.get("trigger", ANY_EVENT)
    nodes = expand(workflow, reader)
    if workflow.is_of_job_files:
        for entry in workflow.entries:
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
        _check_triggers(nodes, trigger, workflow, problems)
    name = header.get("name") or workflow.repository or workflow.file
    workflow_id = header.get("id") or _slug(workflow.repository or workflow.file)
    if not workflow_id:
        problems.error(workflow.place, "no id can be made of the file's name; give the workflow an id")
    return Definition(
        id=workflow_id,
        name=name,
        file=workflow.file,
        problems=problems.sorted(),
        description=header.get("description", ""),
        graph=Graph(tuple(nodes), header.get("concurrency"), reader.scope.vars),
        trigger=trigger,
        paths=header.get("paths", ANY_PATHS),
        _written=workflow,
    )


def _slug(path: str) -> str:
    stem = re.sub(r"\.ya?ml$", "", path.rpartition("/")[2])
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:63].strip("-")


def _check_events(entry: WrittenJob, problems: Problems) -> None:
    """A job file's triggers are those of a workflow: without events it would never start."""
    trigger = entry.written.get("trigger")
    if trigger and isinstance(trigger.node, Mapping) and "events" not in trigger.node.entries:
        problems.error(trigger.node.place, f"{trigger.key} needs the key events")


def _check_triggers(
    nodes: Collection[Node], trigger: Trigger, workflow: WrittenWorkflow, problems: Problems
) -> None:
    if trigger.events is None:
        return
    jobs = {node.job_name: node.job for node in nodes}
    for entry in workflow.entries:
        job = jobs.get(entry.name)
        if job is None or job.trigger.events is None or "trigger" not in entry.written:
            continue
        if not {*trigger.events, EventName.MANUAL} & set(job.trigger.events):
            message = f"the job would never run: the workflow starts on {', '.join(trigger.events)}"
            problems.error(entry.written["trigger"].node.place, message)
