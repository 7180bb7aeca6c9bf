"""``reactorcide demo``: run two jobs and a workflow, on a temporary service."""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.runs import watch as watch_run
from reactorcide.cli.submit import upload_directory, watch
from reactorcide.cli.temporary import PACKAGE_PARENT, TemporaryService, clean_up_on_signals
from reactorcide.domain.errors import ReactorcideError
from reactorcide.domain.jobs import JobStatus
from reactorcide.domain.runs import RunStatus
from reactorcide.lib.sizes import format_size
from reactorcide.workflows.files import WORKFLOWS_DIR

_SAMPLE = PACKAGE_PARENT / "examples" / "sample-project"

# The sample project for an installation without a checkout; it follows the same rules.
_SMALL_PROJECT = {
    "ci.sh": """\
set -eu
artifacts=${REACTORCIDE_ARTIFACTS_DIR:-/job/artifacts}
expected=4
if [ -n "${BREAK:-}" ]; then expected=5; fi
echo "== test"
if [ "$(sh add.sh 2 2)" -eq "$expected" ]; then result="ok 1"; else result="not ok 1"; fi
echo "$result - adds" | tee "$artifacts/tests.tap"
echo 1..1 >>"$artifacts/tests.tap"
if [ "$result" != "ok 1" ]; then exit 3; fi
echo "== report"
echo "2 + 2 = $(sh add.sh 2 2)" | tee "$artifacts/report.txt"
""",
    "add.sh": "echo $(($1 + $2))\n",
    ".reactorcide/workflows/ci.yaml": """\
name: Small project
on: [push]
jobs:
  test: {command: sh ci.sh, artifacts: [report.txt]}
  publish:
    needs: [test]
    artifacts_from: [test]
    checkout: false
    command: echo "published:"; cat /job/needs/test/report.txt
""",
}


class DemoFailed(ReactorcideError):
    """A step of the demo had an unexpected result."""


@click.command()
@click.option("--image", default="alpine:latest", show_default=True, help="Image of the jobs.")
@click.option(
    "--source",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Project to test. In it 'sh ci.sh' must succeed and write report.txt and tests.tap, and "
    "'BREAK=1 sh ci.sh' must exit with 3. Its workflow, if it has one, must complete. By default a sample "
    "project.",
)
def demo(image: str, source: Path | None) -> None:
    """Run two sample jobs and a workflow on a temporary service. Exit code 0: all worked.

    The service, the jobs and their containers are removed at the end.
    """
    clean_up_on_signals()
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reactorcide-demo-") as directory:
        home = Path(directory)
        project = source or _sample(home)
        service = TemporaryService(home, image, project)
        try:
            _step("Starting a service")
            started_at = time.monotonic()
            with service.running() as client:
                version, seconds = client.health()["version"], time.monotonic() - started_at
                render.say(f"Reactorcide {version} answers at {service.url} after {seconds:.1f} s")
                _passing_job(client, project)
                _failing_job(client, project)
                if (project / WORKFLOWS_DIR).is_dir():
                    _workflow(client, project)
                _step("Stopping the service")
            render.say("stopped, exit code 0")
        except ReactorcideError as exc:
            render.line(f"\nThe demo failed: {exc}", style="bold red", err=True)
            render.say(f"The service's log ends with:\n{service.log_tail()}", err=True)
            sys.exit(1)
    render.line(f"\nEverything worked, in {time.monotonic() - began_at:.1f} s.", style="bold green")


def _passing_job(client: Client, source: Path) -> None:
    _step(f"Submitting a job that tests {source}, which is copied into its container")
    job = _run(client, "demo", "sh ci.sh", source)
    if job["status"] != JobStatus.COMPLETED or job["exit_code"] != 0:
        raise DemoFailed(f"the job should have completed, but it {render.outcome(job)}")

    _step("Its artifacts")
    artifacts = client.artifacts(job["job_id"])["artifacts"]
    render.table(("SIZE", "PATH"), [(format_size(item["size"]), item["path"]) for item in artifacts])
    missing = {"tests.tap", "report.txt"} - {item["path"] for item in artifacts if item["size"] > 0}
    if missing:
        raise DemoFailed(f"the job should have left {' and '.join(sorted(missing))}")
    render.say("\nreport.txt:")
    report = b"".join(client.artifact(job["job_id"], "report.txt"))
    for text in report.decode(errors="replace").splitlines():
        render.say(f"  {text}")


def _failing_job(client: Client, source: Path) -> None:
    _step("Submitting the same job with a test that fails")
    job = _run(client, "demo-broken", "BREAK=1 sh ci.sh", source)
    if job["status"] != JobStatus.FAILED or job["exit_code"] != 3:
        raise DemoFailed(f"the job should have failed with exit code 3, but it {render.outcome(job)}")


def _workflow(client: Client, source: Path) -> None:
    _step("Running its workflow, in which one job gets the artifacts of another")
    body = {"source_id": upload_directory(client, source), "repository": source.name}
    run = watch_run(client, client.start_run(body), err=False)
    if run["status"] != RunStatus.COMPLETED:
        raise DemoFailed(f"the run should have completed, but it {run['status']}: {run['reason'] or ''}")
    last = run["nodes"][-1]
    render.say(f"\nthe log of {last['name']}:")
    for text in b"".join(client.log(last["job_id"], {})).decode(errors="replace").splitlines():
        render.say(f"  {text}")


def _run(client: Client, name: str, command: str, source: Path) -> dict[str, Any]:
    job = client.submit(
        {"name": name, "job_command": command, "source_type": "copy", "source_path": os.fspath(source)}
    )
    sys.stdout.flush()
    job = watch(client, job, sys.stdout.buffer)
    error = render.printable(job["error"] or "none")
    render.say(f"status {job['status']}, exit code {job['exit_code']}, error: {error}")
    if not any(client.log(job["job_id"], {"tail": 1})):
        raise DemoFailed("the job should have printed something, but its log is empty")
    return job


def _sample(home: Path) -> Path:
    if (_SAMPLE / "ci.sh").is_file():
        return _SAMPLE
    project = home / "project"
    project.mkdir()
    for name, text in _SMALL_PROJECT.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return project


def _step(text: str) -> None:
    render.line(f"\n{text}", style="bold")
