"""``reactorcide demo``: run two jobs from submission to artifacts, on a temporary service."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

import reactorcide
from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.session import ServiceError
from reactorcide.cli.submit import watch
from reactorcide.domain.errors import ReactorcideError
from reactorcide.domain.jobs import ACTIVE, JobStatus
from reactorcide.lib.sizes import format_size
from reactorcide.settings import Settings

_PACKAGE_PARENT = Path(reactorcide.__file__).parents[1]
_SAMPLE = _PACKAGE_PARENT / "examples" / "sample-project"

# What is tested where there is no checkout: it keeps to the same rules.
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
}

_LISTENS = re.compile(r"^Reactorcide listens on (http://\S+)$", re.MULTILINE)
_START_S = 30.0
_STOP_S = 15.0
_LOOK_EVERY_S = 0.02
_LOG_LINES = 20


class DemoFailed(ReactorcideError):
    """Something was not as it should be."""


@click.command()
@click.option("--image", default="alpine:latest", show_default=True, help="Image of the jobs.")
@click.option(
    "--source",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Project to test. In it 'sh ci.sh' must succeed and write report.txt and tests.tap, and "
    "'BREAK=1 sh ci.sh' must exit with 3. By default a sample project.",
)
def demo(image: str, source: Path | None) -> None:
    """Run two sample jobs on a temporary service. Exit code 0: all worked.

    The service, the jobs and their containers are removed at the end.
    """
    # The default handler would end the process without cleaning up.
    signal.signal(signal.SIGTERM, _terminated)
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reactorcide-demo-") as directory:
        home = Path(directory)
        service = _Service(home, source or _sample(home), image)
        try:
            with service.running() as client:
                _passing_job(client, service.source)
                _failing_job(client, service.source)
        except ReactorcideError as exc:
            render.line(f"\nThe demo failed: {exc}", style="bold red", err=True)
            render.say(f"The service's log ends with:\n{service.log_tail()}", err=True)
            sys.exit(1)
    render.line(f"\nAll of it worked, in {time.monotonic() - began_at:.1f} s.", style="bold green")


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


class _Service:
    """A real ``reactorcide serve``, as a process of its own, with everything below ``home``."""

    def __init__(self, home: Path, source: Path, image: str) -> None:
        self.source = source
        self._settings = Settings(data_dir=home / "data")
        self._log_path = home / "service.log"
        self._log_path.touch()
        self._image = image

    @contextmanager
    def running(self) -> Iterator[Client]:
        """Start the service, yield a client of it, stop it; raises ``DemoFailed`` where one goes wrong."""
        _step("Starting a service")
        started_at = time.monotonic()
        process = self._start()
        try:
            url = self._wait_until_it_listens(process)
            token = self._settings.admin_token_path.read_text("ascii").strip()
            # Over its socket: a token that was read from a file goes to no port.
            with Client(
                self._settings.data_dir, token, "the token is the one that the service has made"
            ) as client:
                version = client.health()["version"]
                seconds = time.monotonic() - started_at
                render.say(f"Reactorcide {version} answers at {url} after {seconds:.1f} s")
                try:
                    yield client
                except BaseException:
                    _leave_no_container(client)
                    raise
            _step("Stopping the service")
            process.send_signal(signal.SIGTERM)
            exit_code = _wait(process)
            if exit_code != 0:
                raise DemoFailed(f"the service should have stopped with exit code 0, but it was {exit_code}")
            render.say("stopped, exit code 0")
        finally:
            if process.poll() is None:
                process.terminate()
                _wait(process)

    def log_tail(self) -> str:
        """Return the last lines that the service has logged."""
        with self._log_path.open(encoding="utf-8", errors="replace") as log:
            return "".join(deque(log, _LOG_LINES))

    def _start(self) -> subprocess.Popen[bytes]:
        # What the caller has set for a service of theirs is not meant for this one.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("REACTORCIDE_")
        }
        # From a checkout, too, where nothing is installed.
        search = [os.fspath(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, search))
        options = {
            "--port": "0",
            "--data-dir": os.fspath(self._settings.data_dir),
            "--source-root": os.fspath(self.source),
            "--default-image": self._image,
        }
        arguments = [part for option in options.items() for part in option]
        with self._log_path.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # this very program
                [sys.executable, "-m", "reactorcide", "serve", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the demo, which then has the service clean up before it stops.
                start_new_session=True,
            )

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            match = _LISTENS.search(self._log_path.read_text("utf-8", errors="replace"))
            if match is not None:
                return match[1]
            if process.poll() is not None:
                raise DemoFailed(f"the service did not start, its exit code is {process.returncode}")
            time.sleep(_LOOK_EVERY_S)
        raise DemoFailed(f"the service did not listen within {_START_S:.0f} s")


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code; a process that takes too long to stop is killed with all that it has started."""
    try:
        return process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _leave_no_container(client: Client) -> None:
    """Cancel what is under way and wait until it is gone: a service that stops leaves containers running."""
    deadline = time.monotonic() + _STOP_S
    with suppress(ServiceError):
        active = {"status": [status.value for status in ACTIVE]}
        for job in client.jobs(active)["jobs"]:
            client.cancel(job["job_id"])
        while time.monotonic() < deadline and any(worker["running_jobs"] for worker in client.workers()):
            time.sleep(_LOOK_EVERY_S)


def _sample(home: Path) -> Path:
    if (_SAMPLE / "ci.sh").is_file():
        return _SAMPLE
    project = home / "project"
    project.mkdir()
    for name, text in _SMALL_PROJECT.items():
        (project / name).write_text(text, "utf-8")
    return project


def _step(text: str) -> None:
    render.line(f"\n{text}", style="bold")


def _terminated(*_: Any) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)
