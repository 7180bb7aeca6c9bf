"""A Docker Engine that goes away under running jobs and comes back."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import docker
import pytest

from tests.conftest import NewService
from tests.support.client import Job
from tests.support.dockerd import OwnEngine, own_engines
from tests.support.image import build_images
from tests.support.service import Service
from tests.support.waiting import wait_until

# It ends on demand only: an engine loses what a container printed that has ended while the engine was away.
PRINTING = """
i=0
until [ -e /tmp/go ]; do
  echo out $i
  echo err $i >&2
  i=$((i + 1))
  sleep 0.1
done
echo $i > /job/artifacts/lines
exit 3
"""


@pytest.fixture
def own_engine() -> Iterator[Callable[..., OwnEngine]]:
    """A factory of engines that end with the test."""
    with own_engines() as make:
        yield make


@contextlib.contextmanager
def serving(
    new_service: NewService, engine: OwnEngine, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Service, docker.APIClient]]:
    """A service on that engine; at the end no container of it may remain."""
    with contextlib.closing(engine.client()) as client:
        image = build_images(client).default
        variables = {"DOCKER_HOST": engine.url, **(environment or {})}
        service = new_service(variables, default_image=image, concurrency=3)
        yield service, client
        wait_until(lambda: not service.containers(client), 30, "the containers are gone")
        service.stop()
        assert not client.containers(all=True)
        assert not client.volumes()["Volumes"]


def started(service: Service, command: str, **fields: object) -> Job:
    job = service.admin.submit(command, **fields)
    # For longer than the worker trusts an engine that has answered it.
    wait_until(lambda: b"out 14\n" in service.admin.log(job), 30, "the command runs")
    return job


def assert_it_waits_for_the_engine(service: Service) -> Job:
    """See that the service goes on without; returns a job that waits."""
    api = service.admin
    job = api.submit("echo late")
    why = f"jobs/{job['job_id']}/why"
    wait_until(lambda: "Docker Engine" in api.get(why)["reason"], 30, "the job says why it waits")
    assert api.job(job)["status"] == "queued"
    ready = api.request("GET", "ready")
    assert ready.status_code == 503
    assert "Docker Engine" in ready.json()["checks"]["docker"]
    assert api.request("GET", "health").status_code == 200
    return job


def assert_it_ran(service: Service, job: Job) -> None:
    ended = service.admin.wait(job)
    assert (ended["status"], ended["attempt"]) == ("completed", 1)
    assert service.admin.log(job) == b"late\n"


def lines_printed(service: Service, job: Job) -> int:
    """Return how many lines of each stream the first attempt's log has: each once, and in order."""
    log = service.admin.log(job, attempt=1).decode().splitlines()
    out, err = ([line for line in log if line.startswith(stream)] for stream in ("out", "err"))
    assert out == [f"out {number}" for number in range(len(out))]
    assert err == [f"err {number}" for number in range(len(err))]
    return min(len(out), len(err))


@pytest.mark.parametrize("end", [OwnEngine.stop, OwnEngine.kill])
def test_container_that_survived_the_engine_is_followed_to_its_end(
    new_service: NewService, own_engine: Callable[..., OwnEngine], end: Callable[[OwnEngine], None]
) -> None:
    engine = own_engine(live_restore=True)
    with serving(new_service, engine) as (service, client):
        api = service.admin
        runs = started(service, PRINTING)
        [container] = service.containers(client, runs)
        end(engine)
        waits = assert_it_waits_for_the_engine(service)
        assert api.job(runs)["status"] == "running"
        engine.start()
        client.exec_start(client.exec_create(container["Id"], ["touch", "/tmp/go"])["Id"])  # noqa: S108
        ended = api.wait(runs)
        assert (ended["status"], ended["error"], ended["attempt"]) == ("failed", "exit code 3", 1)
        artifact = api.request("GET", f"jobs/{runs['job_id']}/artifacts/lines")
        assert lines_printed(service, runs) == int(artifact.text)
        assert_it_ran(service, waits)


def test_a_container_that_died_with_the_engine_is_an_error_or_retried(
    new_service: NewService, own_engine: Callable[..., OwnEngine]
) -> None:
    engine = own_engine(live_restore=False)
    again = f'[ "$REACTORCIDE_ATTEMPT" = 1 ] || exit 0; {PRINTING}'
    with serving(new_service, engine) as (service, _):
        once, twice = started(service, again), started(service, again, retries=1)
        engine.stop()
        waits = assert_it_waits_for_the_engine(service)
        engine.start()
        ended = service.admin.wait(once)
        assert (ended["status"], ended["error"], ended["attempt"]) == ("failed", "exit code 143", 1)
        ended = service.admin.wait(twice)
        assert (ended["status"], ended["error"], ended["attempt"]) == ("completed", None, 2)
        for job in (once, twice):
            assert lines_printed(service, job) >= 14
        assert_it_ran(service, waits)


@pytest.mark.parametrize("live_restore", [True, False])
def test_warm_container_from_before_an_engine_restart_is_not_used(
    new_service: NewService, own_engine: Callable[..., OwnEngine], live_restore: bool
) -> None:
    engine = own_engine(live_restore=live_restore)
    with contextlib.closing(engine.client()) as client:
        image = build_images(client).default
        service = new_service({"DOCKER_HOST": engine.url}, default_image=image, warm=1)
        assert service.admin.run("true")["status"] == "completed"
        service.wait_until_warm(1)
        [old] = service.warm_containers(client)
        engine.kill()
        engine.start()
        job = service.admin.submit("echo late")
        assert_it_ran(service, job)
        service.wait_until_warm(1)

        def is_removed() -> bool:
            return old["Id"] not in [item["Id"] for item in client.containers(all=True)]

        wait_until(is_removed, 30, "the one of before is removed")
        service.stop()
        # A busy engine may take longer than the service has for its end.
        wait_until(lambda: not client.containers(all=True), 30, "none is left")
        assert not client.volumes()["Volumes"]


def test_without_iptables_the_isolated_network_does_not_isolate_jobs(
    new_service: NewService, own_engine: Callable[..., OwnEngine]
) -> None:
    """As docs/security.md says: the engine does not tell, so the service cannot."""
    engine = own_engine(live_restore=False)
    with contextlib.closing(engine.client()) as client:
        image = build_images(client).default
        variables = {"DOCKER_HOST": engine.url}
        api = new_service(variables, default_image=image, concurrency=2, job_network="isolated").admin
        listens = api.submit(
            "hostname -i; echo secret >/tmp/page; while :; do nc -l -p 8000 </tmp/page; done"
        )
        wait_until(lambda: bool(api.log(listens).strip()), 30, "it tells its address")
        address = api.log(listens).split()[0].decode()
        job = api.run(f"nc -w 5 {address} 8000 </dev/null; true")
        assert api.log(job) == b"secret\n"
        api.cancel(listens)
        api.wait(listens)
