"""The content of workflow and job files: the keys of each job, from all allowed places."""

import re
from collections.abc import Iterator
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field
from typing import Any

from reactorcide.workflows.keys import (
    ENTRY,
    JOB,
    JOB_FILE,
    JOB_NAME,
    JOB_NAME_LIKE,
    MAX_JOBS,
    WORKFLOW,
)
from reactorcide.workflows.kinds import Object, Written
from reactorcide.workflows.nodes import Mapping, Node, Scalar, Sequence, compose
from reactorcide.workflows.problems import Place, Problem, Problems, quoted

WORKFLOWS_DIR = ".reactorcide/workflows"
JOBS_DIR = ".reactorcide/jobs"
_NAME = re.compile(r"[^/]+\.ya?ml")


def is_file_of(path: str, *directories: str) -> bool:
    """Return whether a path is that of a workflow or job file in one of the directories, not below."""
    directory, _, name = path.rpartition("/")
    return directory in directories and _NAME.fullmatch(name) is not None


@dataclass(slots=True)
class WrittenJob:
    """A job in a file: its keys, from all allowed places."""

    name: str
    place: Place
    written: dict[str, Written]


@dataclass(slots=True)
class WrittenWorkflow:
    """A workflow in a file."""

    file: str
    header: dict[str, Written] = field(default_factory=dict)
    place: Place | None = None
    """``None`` if the file could not be read."""
    entries: list[WrittenJob] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    repository: str = ""
    """The name for the workflow of all job files."""

    @property
    def is_of_job_files(self) -> bool:
        """Return whether it has no file of its own."""
        return bool(self.repository)


class JobFiles:
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


def read_workflow(
    path: str, content: str | bytes, job_files: JobFiles, problems: Problems
) -> WrittenWorkflow:
    root = compose(path, content, problems)
    if not isinstance(root, Mapping):
        if not problems.has_errors:
            problems.error(Place(path), "a workflow file is a mapping, with name, on and jobs")
        return WrittenWorkflow(path, problems=problems.sorted())
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
            written = overlaid(base, written)
        entries.append(WrittenJob(name, place, written))
    return WrittenWorkflow(path, header, root.place, entries, (*problems.sorted(), *others))


def _base(
    job_file: Written, job_files: JobFiles, problems: Problems
) -> tuple[dict[str, Written], tuple[Problem, ...]]:
    if not isinstance(job_file.node, Scalar):
        problems.error(job_file.node.place, "job_file takes the name of a file")
        return {}, ()
    path = job_files.find(job_file.node.text)
    if path is None:
        names = [names.rpartition("/")[2] for names in job_files.paths]
        message = f"there is no file {quoted(job_file.node.text)} in {JOBS_DIR}"
        problems.error(job_file.node.place, message, got=job_file.node.text, known=names)
        return {}, ()
    _, written, of_file = job_files.read(path)
    # The workflow decides when it starts.
    return {key: value for key, value in written.items() if key not in ("name", "trigger", "paths")}, of_file


def read_job_files(job_files: JobFiles, repository: str) -> WrittenWorkflow:
    problems = Problems()
    entries: list[WrittenJob] = []
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
                name.node.place, f"the job {quoted(name.node.text)} is also in {first.file}:{first.line}"
            )
            continue
        names[name.node.text] = name.node.place
        if _is_name(name.node.text, name.node.place, problems):
            entries.append(WrittenJob(name.node.text, place, written))
    all_problems = (*problems.sorted(), *others)
    return WrittenWorkflow(
        JOBS_DIR, {}, Place(JOBS_DIR), entries, all_problems, repository=repository or "jobs"
    )


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
            problems.error(place, f"there are two jobs {quoted(name)}")
        elif not isinstance(node, Mapping):
            problems.error(place, f"the job {quoted(name)} takes a mapping, with a command")
        elif _is_name(name, place, problems):
            yield name, place, node
        names.add(name)


def _is_name(name: str, place: Place, problems: Problems) -> bool:
    if re.fullmatch(JOB_NAME, name):
        return True
    problems.error(place, f"{quoted(name)} is not {JOB_NAME_LIKE}")
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
    return overlaid(written, inner)


def overlaid(base: AbstractMapping[str, Written], over: AbstractMapping[str, Written]) -> dict[str, Written]:
    """Return the keys of both, ``over`` first; environments are merged."""
    merged = {**base, **over}
    below, above = base.get("environment"), over.get("environment")
    if below and above and isinstance(below.node, Mapping) and isinstance(above.node, Mapping):
        entries = {**below.node.entries, **above.node.entries}
        merged["environment"] = Written(above.key, Mapping(above.node.place, entries))
    return merged
