"""An upgrade while jobs run: a service of an earlier version, then one of this version on its data directory.

The earlier versions come from the history of the repository, where both call themselves 0.1.0.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from tests.conftest import ended_cleanly
from tests.support.client import Job
from tests.support.image import Images
from tests.support.service import PROGRAM, Service
from tests.support.waiting import wait_until

ROOT = PROGRAM.parent
# 21 migrations lie between them; the first has neither warm containers nor a web page.
FIRST, NEWEST = "104487f", "ff39567"
COUNTING = (
    "i=0; while [ ! -e /tmp/go ]; do i=$((i+1)); echo $i; sleep 0.02; done;"
    " echo x >/job/artifacts/x; echo end"
)


def launcher_of(commit: str, directory: Path) -> Path:
    """Return the launcher of an earlier version, whose files go to a directory."""
    git = ["git", "-C", str(ROOT)]
    shallow = subprocess.run(
        [*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True, check=False
    )
    if shallow.stdout.strip() != "false":
        pytest.skip("the earlier versions are in the history, which this copy does not have")
    archive = subprocess.run(
        [*git, "archive", commit, "reactorcide", "reactorcide.py"], capture_output=True, check=True
    )
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)
    return directory / "reactorcide.py"


@contextmanager
def earlier_service(commit: str, service: Service, **options: object) -> Iterator[None]:
    """Run an earlier version on the service's data directory; the body ends it."""
    launcher = launcher_of(commit, service.home / "earlier")
    new_options = service.options
    # One of the options is younger than the first version.
    service.options = {name: value for name, value in new_options.items() if name != "warm"} | options
    service.program = (sys.executable, str(launcher))
    try:
        service.start()
        yield
    finally:
        service.kill()
        service.options, service.program = new_options, None


@pytest.fixture
def service(tmp_path: Path, images: Images, engine: docker.APIClient) -> Iterator[Service]:
    """A service of this version that has not been started yet."""
    service = Service(tmp_path / "service", images.default, concurrency=1, cancel_grace=1)
    yield from ended_cleanly(service, engine)


def counting(service: Service) -> Job:
    """Return a job that prints numbers until it is released."""
    job = service.admin.wait(service.admin.submit(COUNTING), "running")
    wait_until(lambda: service.admin.log(job).count(b"\n") > 20, 20, "it counts")
    return job


def release(service: Service, engine: docker.APIClient, job: Job) -> None:
    [container] = service.containers(engine, job)
    touch = engine.exec_create(container["Id"], ["touch", "/tmp/go"])  # noqa: S108  # in the container
    engine.exec_start(touch["Id"])


def assert_complete(service: Service, job: Job) -> None:
    """Check that the job has ended in its first attempt, with each line of its log once."""
    job = service.admin.wait(job)
    assert (job["status"], job["exit_code"], job["attempt"]) == ("completed", 0, 1)
    *numbers, end = service.admin.log(job).splitlines()
    assert numbers == [b"%d" % number for number in range(1, len(numbers) + 1)]
    assert end == b"end"
    assert service.admin.artifact_paths(job) == ["x"]


@pytest.mark.parametrize(
    ("earlier", "end"), [(FIRST, Service.stop), (NEWEST, Service.kill)], ids=["first", "newest"]
)
def test_running_job_is_adopted_by_the_newer_version(
    earlier: str, end: Callable[[Service], None], service: Service, engine: docker.APIClient
) -> None:
    with earlier_service(earlier, service):
        done = service.admin.run("echo before")
        job = counting(service)
        waiting = service.admin.submit("echo waited")
        end(service)
    [container] = service.containers(engine, job)
    assert container["State"] == "running"
    service.start()
    seen = service.admin.log(job).count(b"\n")
    wait_until(lambda: service.admin.log(job).count(b"\n") > seen + 20, 20, "its log continues")
    assert service.admin.job(waiting)["status"] == "queued"
    release(service, engine, job)
    assert_complete(service, job)
    for other, printed in ((done, b"before\n"), (waiting, b"waited\n")):
        assert service.admin.wait(other)["status"] == "completed"
        assert service.admin.log(other) == printed


def test_drained_version_leaves_what_waits_to_the_newer_one(
    service: Service, engine: docker.APIClient
) -> None:
    with earlier_service(FIRST, service, drain=None):
        job = counting(service)
        waiting = service.admin.submit("echo waited")
        service.signal(signal.SIGTERM)
        wait_until(lambda: "waits for" in service.admin.request("GET", "/api/v1/ready").text, 10, "it drains")
        release(service, engine, job)
        assert service.wait() == 0
    service.start()
    assert_complete(service, job)
    assert service.admin.wait(waiting)["attempt"] == 1
    assert service.admin.log(waiting) == b"waited\n"
