"""A Docker Engine that goes away under running jobs and comes back."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator

import docker
import pytest

from tests.conftest import NewService
from tests.support.client import Job
from tests.support.dockerd import OwnEngine
from tests.support.image import build_images
from tests.support.service import Service
from tests.support.waiting import wait_until

LINES = 40
PRINTING = f"""
i=0
while [ $i -lt {LINES} ]; do
  echo out $i
  echo err $i >&2
  i=$((i + 1))
  sleep 0.1
done
"""


@pytest.fixture
def own_engine() -> Iterator[Callable[..., OwnEngine]]:
    """A factory of engines that end with the test."""
    if "CI" not in os.environ and (os.geteuid() != 0 or shutil.which("dockerd") is None):
        pytest.skip("an engine of the tests' own takes root and dockerd")
    with contextlib.ExitStack() as made:

        def make(*, live_restore: bool) -> OwnEngine:
            engine = OwnEngine(live_restore=live_restore)
            made.callback(engine.close)
            return engine.start()

        yield make


@contextlib.contextmanager
def serving(new_service: NewService, engine: OwnEngine) -> Iterator[tuple[Service, docker.APIClient]]:
    """A service on that engine; afterwards it has left no container there."""
    with contextlib.closing(engine.client()) as client:
        image = build_images(client).default
        service = new_service({"DOCKER_HOST": engine.url}, default_image=image, concurrency=2)
        yield service, client
        wait_until(lambda: not client.containers(all=True), 30, "the containers are gone")
        assert not client.volumes()["Volumes"]


def begun(service: Service, command: str, **fields: object) -> Job:
    job = service.admin.submit(command, **fields)
    wait_until(lambda: b"out 3\n" in service.admin.log(job), 30, "the command runs")
    return job


def assert_it_waits_for_the_engine(service: Service) -> Job:
    """See that the service goes on without; returns a job that waits."""
    job = service.admin.submit("echo late")
    why = f"jobs/{job['job_id']}/why"
    wait_until(lambda: "Docker Engine" in service.admin.get(why)["reason"], 30, "the job says why it waits")
    # Where it was claimed before that was known, it is tried again.
    assert service.admin.job(job)["status"] in ("queued", "submitted")
    ready = service.admin.request("GET", "ready")
    assert ready.status_code == 503
    assert "Docker Engine" in ready.json()["checks"]["docker"]
    return job


def lines_of(service: Service, job: Job, stream: str) -> list[str]:
    log = service.admin.log(job, attempt=1).decode().splitlines()
    return [line for line in log if line.startswith(stream)]


@pytest.mark.parametrize("end", [OwnEngine.stop, OwnEngine.kill])
def test_a_container_that_went_on_is_followed_to_its_end(
    new_service: NewService, own_engine: Callable[..., OwnEngine], end: Callable[[OwnEngine], None]
) -> None:
    engine = own_engine(live_restore=True)
    with serving(new_service, engine) as (service, _):
        runs = begun(service, f"{PRINTING} echo kept > /job/artifacts/kept; exit 3")
        end(engine)
        assert service.admin.job(runs)["status"] == "running"
        waits = assert_it_waits_for_the_engine(service)
        engine.start()
        ended = service.admin.wait(runs)
        assert (ended["status"], ended["exit_code"], ended["error"]) == ("failed", 3, "exit code 3")
        assert ended["attempt"] == 1
        for stream in ("out", "err"):
            assert lines_of(service, runs, stream) == [f"{stream} {number}" for number in range(LINES)]
        assert service.admin.artifact_paths(runs) == ["kept"]
        assert service.admin.wait(waits)["status"] == "completed"
        assert service.admin.log(waits) == b"late\n"


def test_a_container_that_the_engine_took_along_is_told_and_run_again_if_allowed(
    new_service: NewService, own_engine: Callable[..., OwnEngine]
) -> None:
    engine = own_engine(live_restore=False)
    again = f'[ "$REACTORCIDE_ATTEMPT" = 1 ] || exit 0; {PRINTING} sleep 1000'
    with serving(new_service, engine) as (service, _):
        once, twice = begun(service, again), begun(service, again, retries=1)
        engine.stop()
        waits = assert_it_waits_for_the_engine(service)
        engine.start()
        ended = service.admin.wait(once)
        assert (ended["status"], ended["error"], ended["attempt"]) == ("failed", "exit code 143", 1)
        ended = service.admin.wait(twice)
        assert (ended["status"], ended["error"], ended["attempt"]) == ("completed", None, 2)
        for job in (once, twice):
            for stream in ("out", "err"):
                printed = lines_of(service, job, stream)
                assert len(printed) >= 3
                assert printed == [f"{stream} {number}" for number in range(len(printed))]
        assert service.admin.wait(waits)["status"] == "completed"
