"""``reactorcide run``: run a workflow of a work tree on this host, without a server and without a token."""

import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

import click

from reactorcide.cli import render
from reactorcide.cli.check import checkout_of, read_files
from reactorcide.cli.client import Client
from reactorcide.cli.runs import (
    Show,
    drawn,
    event_options,
    exit_code,
    node_line,
    say_failed_tests,
    start_body,
    tests_phrase,
)
from reactorcide.cli.secret import read_value
from reactorcide.cli.session import ServiceError
from reactorcide.cli.submit import upload_directory, variables_of_shell
from reactorcide.cli.temporary import TemporaryService, clean_up_on_signals
from reactorcide.domain.errors import ReactorcideError
from reactorcide.domain.events import EventName
from reactorcide.domain.jobs import WAITING
from reactorcide.domain.runs import RunStatus
from reactorcide.runs.evaluation import choose, select_jobs
from reactorcide.workflows.events import Event
from reactorcide.workflows.files import JOBS_DIR, WORKFLOWS_DIR
from reactorcide.workflows.graph import Node
from reactorcide.workflows.problems import WorkflowError

_EXIT_WRONG_FILE = 2
_SILENT_S = 2.0
"""If nothing runs and nothing changes for longer, the reason is printed."""


def _secrets(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """Return the values of secrets by name, each read from its file."""
    values = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not of the form PATH:KEY=@FILE")
        values[name] = read_value(source)
    return values


@click.command()
@click.argument("workflow", required=False)
@click.option(
    "--event",
    type=click.Choice([name.value for name in EventName]),
    default=EventName.MANUAL.value,
    show_default=True,
    help="Event of the run.",
)
@event_options("Branch of the event.")
@click.option(
    "--job", "jobs", metavar="NAME", multiple=True, help="Run this job and what it needs; repeatable."
)
@click.option(
    "--env",
    "environment",
    metavar="NAME=VALUE",
    multiple=True,
    callback=variables_of_shell,
    help="Variable of all jobs, and value of ${env:NAME}; by default the shell's value. Repeatable.",
)
@click.option(
    "--secret",
    "secrets",
    metavar="PATH:KEY=@FILE",
    multiple=True,
    callback=_secrets,
    help="File with the value of ${secret:PATH:KEY}; repeatable.",
)
@click.option("--image", default="alpine:latest", show_default=True, help="Image of jobs that name none.")
def run(workflow: str | None, image: str, **options: Any) -> None:
    """Run WORKFLOW, an id or a file, on the work tree as it is, without what git ignores.

    A file of .reactorcide/jobs is a workflow of that job alone.

    Prints the graph and the logs as they come. Exit code 0 if the run completed, 1 if it failed, 2 if the
    workflow file is wrong.
    """
    clean_up_on_signals()
    root = checkout_of(Path())
    if root is None:
        _wrong(f"there is no {WORKFLOWS_DIR} and no {JOBS_DIR} in {Path().resolve()} or above")
    body = start_body(workflow, options)
    body |= {name: options[name] for name in ("environment", "secrets")}
    body["jobs"] = list(options["jobs"]) or None
    body["workflow"] = _checked(root, body)
    with tempfile.TemporaryDirectory(prefix="reactorcide-run-") as directory:
        service = TemporaryService(Path(directory), image)
        try:
            with service.running() as client:
                body["source_id"] = upload_directory(client, root)
                body["repository"] = render.utf8(root.name) or None
                ended = _Watch(service, client).to_its_end(_started(client, body))
                _summarize(client, ended)
        except ServiceError as exc:
            raise ReactorcideError(f"{exc}; the service's log ends with:\n{service.log_tail()}") from exc
    sys.exit(exit_code(ended))


def _checked(root: Path, body: Mapping[str, Any]) -> str:
    """Return the id or file of the workflow to start; if it has errors, print them and exit."""
    workflow = body["workflow"]
    if workflow is not None and Path(workflow).is_file():
        path = Path(workflow).resolve()
        workflow = path.relative_to(root).as_posix() if path.is_relative_to(root) else workflow
    definition = choose(read_files(root), root.name, workflow)
    if isinstance(definition, str):
        _wrong(definition)
    if definition.errors:
        _wrong("\n".join(str(problem) for problem in definition.errors))
    event = Event(**body["event"] | {"name": EventName(body["event"]["name"])})
    try:
        graph = definition.expand(event, body["changed_files"], body["vars"], body["environment"])
    except WorkflowError as exc:
        _wrong(str(exc))
    selected = select_jobs(graph, body["jobs"])
    if isinstance(selected, str):
        _wrong(selected)
    nodes = [node for node in selected.nodes if node.skipped is None]
    refused = [node.name for node in nodes if node.job.disable_run_local]
    if refused:
        _wrong(f"{definition.file}: disable_run_local prevents {', '.join(refused)} from running locally")
    _check_values(definition.file, nodes, body["secrets"])
    return definition.id if definition.file != JOBS_DIR else workflow or definition.id


def _check_values(file: str, nodes: Iterable[Node], secrets: Collection[str]) -> None:
    """Exit with the names of the referenced secrets and variables that have no value."""
    references = {item for node in nodes for value in node.job.templates() for item in value.references}
    missing = {
        source: sorted({item.name for item in references if item.source == source} - set(values))
        # References with a value have been replaced.
        for source, values in (("secret", secrets), ("env", ()))
    }
    if missing["secret"]:
        names = ", ".join(missing["secret"])
        _wrong(f"{file}: there is no value for {names}; give each as --secret PATH:KEY=@FILE")
    if missing["env"]:
        names = ", ".join(missing["env"])
        _wrong(f"{file}: there is no value for {names}; give each as --env NAME=VALUE, or --env NAME")


def _started(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    try:
        started = client.start_run(body)
    except ServiceError as exc:
        if exc.status != 400:
            raise
        _wrong(str(exc))
    # A run with nodes has a valid file: a node failed at once.
    if started["status"] == RunStatus.FAILED and not started["nodes"]:
        _wrong(started["reason"])
    return started


class _Watch:
    """Prints the logs of a run's jobs live, and its graph: a tree on a terminal, else lines."""

    def __init__(self, service: TemporaryService, client: Client) -> None:
        self._service = service
        self._client = client
        self._lock = threading.Lock()
        self._statuses: dict[str, str] = {}
        self._followed: dict[str, threading.Thread] = {}
        self._reason: str | None = None
        self._print: Callable[[str], None] = render.say
        """Prints lines of logs; on a terminal, both this and ``_note`` print above the tree."""
        self._note: Callable[[str], None] = partial(render.say, err=True)

    def to_its_end(self, run: dict[str, Any]) -> dict[str, Any]:
        """Return the run once it has ended and all its logs are printed."""
        if not (sys.stdout.isatty() and sys.stderr.isatty()):
            return self._follow(run, self._print_changes)
        with drawn(err=False) as (draw, say):
            self._print = self._note = say
            return self._follow(run, draw)

    def _follow(self, run: dict[str, Any], show: Show) -> dict[str, Any]:
        before, changed_at_s = run, monotonic()
        for state in self._client.run_states(run):
            show(state)
            if state != before:
                before, changed_at_s = state, monotonic()
            elif monotonic() - changed_at_s > _SILENT_S:
                self._say_why_nothing_runs(state)
            for node in state["nodes"]:
                self._follow_log(node)
        for thread in self._followed.values():
            thread.join()
        return state

    def _print_changes(self, state: dict[str, Any]) -> None:
        for node in state["nodes"]:
            name, status = node["name"], node["status"]
            if self._statuses.get(name) != status and status not in ("waiting", "submitted", "queued"):
                with self._lock:
                    render.line(node_line(node), style=render.status_style(status), err=True)
            self._statuses[name] = status

    def _follow_log(self, node: dict[str, Any]) -> None:
        job_id = node["job_id"]
        if job_id is not None and node["status"] not in WAITING and job_id not in self._followed:
            thread = threading.Thread(target=self._print_log, args=(node["name"], job_id), daemon=True)
            self._followed[job_id] = thread
            thread.start()

    def _say_why_nothing_runs(self, state: Mapping[str, Any]) -> None:
        """Print what the first job waits for, where no other job runs: nothing else would be printed."""
        waiting = [node for node in state["nodes"] if node["job_id"] and node["status"] in WAITING]
        if not waiting or any(node["status"] == "running" for node in state["nodes"]):
            return
        reason = self._client.why(waiting[0]["job_id"])
        if reason != self._reason:
            self._reason = reason
            with self._lock:
                self._note(f"{waiting[0]['name']} waits: {reason}")

    def _print_log(self, name: str, job_id: str) -> None:
        """Print the log of a job, each line behind the name of its node."""
        rest = b""
        # A separate client, because a client is not thread-safe.
        with self._service.client() as client:
            for chunk in client.follow(job_id):
                *lines, rest = (rest + chunk).split(b"\n")
                self._print_lines(name, lines)
        if rest:
            self._print_lines(name, [rest])

    def _print_lines(self, name: str, lines: list[bytes]) -> None:
        if lines:
            with self._lock:
                self._print("\n".join(f"{name} | {line.decode(errors='replace')}" for line in lines))
                sys.stdout.flush()


def _summarize(client: Client, ended: dict[str, Any]) -> None:
    jobs = {job["job_id"]: job for job in client.jobs({"run_id": ended["run_id"], "limit": 1000})["jobs"]}
    rows = []
    for node in ended["nodes"]:
        job = jobs.get(node["job_id"])
        rows.append((node["name"], node["status"], render.duration(job) if job else "", node["reason"] or ""))
    render.table(("JOB", "STATUS", "TIME", ""), rows)
    reason = f": {ended['reason']}" if ended["reason"] else ""
    say_failed_tests(client, ended, err=False)
    text = f"{ended['workflow_name']} {ended['status']}{tests_phrase(ended)}{reason}"
    render.line(text, style=render.status_style(ended["status"]))


def _wrong(text: str) -> NoReturn:
    render.say(text, err=True)
    sys.exit(_EXIT_WRONG_FILE)
