"""Reading one workflow in a test."""

from reactorcide.domain.events import EventName
from reactorcide.workflows.definition import Definition, check
from reactorcide.workflows.events import Event

FILE = ".reactorcide/workflows/ci.yaml"
PUSH = Event(name=EventName.PUSH, branch="main", sha="c0ffee")


def define(text: str | bytes, **job_files: str) -> Definition:
    """Return the workflow of a file; ``job_files`` are by the names of their files, without ``.yaml``."""
    jobs = {f".reactorcide/jobs/{name}.yaml": content for name, content in job_files.items()}
    (definition,) = check({FILE: text, **jobs}, "acme/site")
    return definition


def job(text: str) -> str:
    """Return a workflow with one job, ``j``, of these keys."""
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    return f"name: CI\non: push\njobs:\n  j:\n    command: make\n{lines}"


def problems(text: str | bytes) -> list[str]:
    """Return the problems of a workflow file, each as ``LINE:COLUMN: sentence``."""
    return [str(problem).removeprefix(f"{FILE}:") for problem in define(text).problems]
