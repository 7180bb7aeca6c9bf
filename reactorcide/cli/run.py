"""``reactorcide run``: run a workflow of a work tree on this host, without a server and without a token."""

import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NoReturn

import click

from reactorcide.cli import render
from reactorcide.cli.check import checkout_of, read_files
from reactorcide.cli.client import Client
from reactorcide.cli.runs import event_options, exit_code, start_body
from reactorcide.cli.session import ServiceError
from reactorcide.cli.submit import upload_directory
from reactorcide.cli.temporary import TemporaryService
from reactorcide.domain.errors import ReactorcideError
from reactorcide.domain.jobs import WAITING
from reactorcide.domain.runs import RunStatus
from reactorcide.runs.evaluation import choose
from reactorcide.workflows.definition import check as check_files
from reactorcide.workflows.events import EventName
from reactorcide.workflows.files import JOBS_DIR, WORKFLOWS_DIR

_EXIT_WRONG_FILE = 2


@click.command()
@click.argument("workflow", required=False)
@click.option(
    "--event",
    type=click.Choice([name.value for name in EventName]),
    default=EventName.MANUAL.value,
    show_default=True,
    help="What the run is for.",
)
@event_options("Branch of the event.")
@click.option("--image", default="alpine:latest", show_default=True, help="Image of jobs that name none.")
def run(workflow: str | None, image: str, **options: Any) -> None:
    """Run WORKFLOW, an id or a file, on the work tree as it is, without what git ignores.

    Prints the graph and the logs as they come. Exit code 0 if the run completed, 1 if it failed, 2 if the
    workflow file is wrong.
    """
    # The default handler would end the process without cleaning up.
    signal.signal(signal.SIGTERM, _terminated)
    root = checkout_of(Path())
    if root is None:
        _wrong(f"there is no {WORKFLOWS_DIR} and no {JOBS_DIR} in {Path().resolve()} or above")
    body = start_body(_checked(root, workflow), options)
    with tempfile.TemporaryDirectory(prefix="reactorcide-run-") as directory:
        service = TemporaryService(Path(directory), image)
        try:
            with service.running() as client:
                body |= {"source_id": upload_directory(client, root), "repository": root.name or None}
                ended = _Watch(service, client).to_its_end(_started(client, body))
                _summarize(client, ended)
        except ServiceError as exc:
            raise ReactorcideError(f"{exc}; the service's log ends with:\n{service.log_tail()}") from exc
    sys.exit(exit_code(ended))


def _checked(root: Path, workflow: str | None) -> str:
    """Return the id of a workflow without errors; else print what is wrong, and exit."""
    if workflow is not None and Path(workflow).is_file():
        path = Path(workflow).resolve()
        workflow = path.relative_to(root).as_posix() if path.is_relative_to(root) else workflow
    definition = choose(check_files(read_files(root), root.name), workflow)
    if isinstance(definition, str):
        _wrong(definition)
    if definition.errors:
        _wrong("\n".join(str(problem) for problem in definition.errors))
    refused = [node.name for node in definition.graph.nodes if node.job.disable_run_local]
    if refused:
        _wrong(f"{definition.file}: disable_run_local keeps {', '.join(refused)} from being run locally")
    return definition.id


def _started(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    try:
        started = client.start_run(body)
    except ServiceError as exc:
        if exc.status != 400:
            raise
        _wrong(str(exc))
    if started["status"] == RunStatus.FAILED:
        _wrong(started["reason"])
    return started


class _Watch:
    """Prints what becomes of a run's nodes, and the log of each of its jobs, all as it comes."""

    def __init__(self, service: TemporaryService, client: Client) -> None:
        self._service = service
        self._client = client
        self._lock = threading.Lock()
        self._seen: dict[str, str] = {}
        self._followed: dict[str, threading.Thread] = {}

    def to_its_end(self, run: dict[str, Any]) -> dict[str, Any]:
        """Return the run once it is over and all its logs are printed."""
        for state in self._client.run_states(run):
            for node in state["nodes"]:
                self._look(node)
        for thread in self._followed.values():
            thread.join()
        return state

    def _look(self, node: dict[str, Any]) -> None:
        name, status, job_id = node["name"], node["status"], node["job_id"]
        if self._seen.get(name) != status and status not in ("waiting", "submitted", "queued"):
            reason = f": {node['reason']}" if node["reason"] else ""
            with self._lock:
                render.line(f"{name} {status}{reason}", style=render.status_style(status), err=True)
        self._seen[name] = status
        if job_id is not None and status not in WAITING and job_id not in self._followed:
            thread = threading.Thread(target=self._print_log, args=(name, job_id), daemon=True)
            self._followed[job_id] = thread
            thread.start()

    def _print_log(self, name: str, job_id: str) -> None:
        """Print the log of a job, each line behind the name of its node."""
        rest = b""
        # A client of its own: it is not for two threads.
        with self._service.client() as client:
            for chunk in client.follow(job_id):
                *lines, rest = (rest + chunk).split(b"\n")
                self._print_lines(name, lines)
        if rest:
            self._print_lines(name, [rest])

    def _print_lines(self, name: str, lines: list[bytes]) -> None:
        with self._lock:
            for line in lines:
                render.say(f"{name} | {line.decode(errors='replace')}")
            sys.stdout.flush()


def _summarize(client: Client, ended: dict[str, Any]) -> None:
    jobs = {job["job_id"]: job for job in client.jobs({"run_id": ended["run_id"], "limit": 1000})["jobs"]}
    rows = []
    for node in ended["nodes"]:
        job = jobs.get(node["job_id"])
        reason = node["reason"] or (job and job["error"]) or ""
        rows.append((node["name"], node["status"], render.duration(job) if job else "", reason))
    render.table(("JOB", "STATUS", "TIME", ""), rows)
    reason = f": {ended['reason']}" if ended["reason"] else ""
    text = f"{ended['workflow_name']} {ended['status']}{reason}"
    render.line(text, style=render.status_style(ended["status"]))


def _wrong(text: str) -> NoReturn:
    render.say(text, err=True)
    sys.exit(_EXIT_WRONG_FILE)


def _terminated(*_: Any) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)
