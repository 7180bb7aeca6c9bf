"""Services that are killed, and workers that go from one to another, while jobs run."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.several.conftest import House
from tests.several.test_two_services import UNTIL_RELEASED
from tests.support.engine_proxy import TcpProxy
from tests.support.remote import RemoteWorker
from tests.support.service import Service, clean_environment, command_line
from tests.support.waiting import wait_until
from tests.worker.remote.conftest import worker_ended_cleanly

COUNT = "i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.1; done; echo kept > /job/artifacts/a"
COUNTED = b"".join(b"%d\n" % number for number in range(60))


@pytest.fixture
def balancer(pair: tuple[Service, Service]) -> Iterator[TcpProxy]:
    """What a worker reaches one of the services by."""
    proxy = TcpProxy(pair[0].port)
    proxy.on()
    yield proxy
    proxy.off()


def test_a_worker_goes_from_one_to_the_other_and_back(
    pair: tuple[Service, Service], balancer: TcpProxy, engine: docker.APIClient, tmp_path: Path
) -> None:
    first, second = pair
    worker = RemoteWorker(first, tmp_path / "far", "far", "far", server=balancer.url).start()
    for _ in worker_ended_cleanly(worker, engine):
        job = first.admin.submit(COUNT, queue_name="far")
        for service, line in ((second, b"5\n"), (first, b"20\n"), (second, b"35\n")):
            wait_until(lambda: line in first.admin.log(job), 30, f"it prints {line!r}")  # noqa: B023
            balancer.turn_to(service.port)
        with first.admin.follow(job) as lines:
            assert list(lines) == COUNTED.splitlines()
        ended = first.admin.wait(job)
        assert (ended["status"], ended["attempt"], ended["worker_id"]) == ("completed", 1, worker.worker_id)
        for service in pair:
            assert service.admin.log(job) == COUNTED
            assert service.admin.artifact_paths(job) == ["a"]
            attempts = service.admin.get(f"jobs/{job['job_id']}/attempts")["attempts"]
            assert [item["error"] for item in attempts] == [None]
        # Cancelled through the one that does not hold the worker's call.
        cancelled = second.admin.submit("echo begun; sleep 1000", queue_name="far")
        with first.admin.follow(cancelled) as lines:
            assert next(lines) == b"begun"
            first.admin.cancel(cancelled)
            wait_until(lambda: not worker.containers(engine), 20, "its container is gone")
        assert first.admin.job(cancelled)["status"] == "cancelled"


def test_a_killed_service_adopts_its_own_jobs_and_no_other_does(
    house: House, engine: docker.APIClient
) -> None:
    first, second = house.service().start(), house.service(concurrency=3).start()
    jobs = [first.admin.submit(UNTIL_RELEASED) for _ in range(4)]
    for job in jobs:
        wait_until(lambda: first.admin.log(job) == b"begun\n", 60, "it runs")  # noqa: B023
    owners = {job["job_id"]: first.admin.job(job)["worker_id"] for job in jobs}
    assert set(owners.values()) == {own_worker(first), own_worker(second)}
    first.kill()
    # What the other one runs goes on, and it leaves the rest to the first.
    mine = [job for job in jobs if owners[job["job_id"]] == own_worker(second)]
    release(engine, second)
    for job in mine:
        assert second.admin.wait(job)["attempt"] == 1
    assert second.admin.run("echo meanwhile")["status"] == "completed"
    assert {second.admin.job(job)["status"] for job in jobs if job not in mine} == {"running"}
    first.start()
    release(engine, first)
    for job in jobs:
        ended = second.admin.wait(job)
        assert (ended["status"], ended["attempt"], ended["worker_id"]) == (
            "completed",
            1,
            owners[job["job_id"]],
        )
        assert second.admin.log(job) == b"begun\ndone\n"


def release(engine: docker.APIClient, service: Service) -> None:
    """Have the commands of a service's jobs end."""
    for container in service.containers(engine):
        touch = engine.exec_create(container["Id"], ["touch", "/tmp/go"])  # noqa: S108  # in the container
        engine.exec_start(touch["Id"])


def own_worker(service: Service) -> str:
    """Return the id of the worker of a service."""
    return "embedded-" + (service.data_dir / "service-id").read_text().strip()


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("corndogs_address", "and this one has its queue in its own data directory"),
        ("objects", "logs and artifacts are in a data directory, which only one of them can have"),
        ("key", "all of them need the same; copy the file secret-key"),
    ],
)
def test_one_that_cannot_share_is_refused(
    pair: tuple[Service, Service], tmp_path: Path, option: str, problem: str
) -> None:
    first = pair[0]
    options = {name: value for name, value in first.options.items() if name != option}
    ended = subprocess.run(
        command_line("serve", options | {"data_dir": tmp_path / "data"}),
        env=clean_environment(tmp_path, **first.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    # The last word is what to do.
    assert problem in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    # It has not stayed among them.
    own = "embedded-" + (tmp_path / "data" / "service-id").read_text().strip()

    def listed() -> list[str]:
        return [item["worker_id"] for item in first.admin.get("workers")["workers"]]

    wait_until(lambda: own not in listed(), 10, "it is listed no more")
