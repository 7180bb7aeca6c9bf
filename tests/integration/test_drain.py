"""``serve --drain``: the first signal waits for the running jobs, the second does not."""

import signal

import docker

from tests.conftest import NewService
from tests.support.service import Service
from tests.support.waiting import wait_until

UNTIL_RELEASED = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo done"


def draining(service: Service) -> bool:
    response = service.admin.request("GET", "/api/v1/ready")
    return "waits for the running jobs" in response.json()["checks"]["worker"]


def started(service: Service) -> dict[str, object]:
    job = service.admin.submit(UNTIL_RELEASED)
    wait_until(lambda: service.admin.log(job) == b"begun\n", 30, "the command runs")
    return job


def release(service: Service, engine: docker.APIClient, job: dict[str, object]) -> None:
    [container] = service.containers(engine, job)
    touch = engine.exec_create(container["Id"], ["touch", "/tmp/go"])  # noqa: S108  # in the container
    engine.exec_start(touch["Id"])


def test_first_sigterm_waits_for_running_jobs_and_claims_no_more(
    new_service: NewService, engine: docker.APIClient
) -> None:
    service = new_service({}, drain=None, concurrency=2)
    runs = started(service)
    # As a service manager does it, to every process of the service.
    service.signal(signal.SIGTERM, whole_group=True)
    wait_until(lambda: draining(service), 10, "it drains")
    waits = service.admin.submit("echo late")
    assert "takes no other" in service.admin.get(f"jobs/{waits['job_id']}/why")["reason"]
    release(service, engine, runs)
    assert service.wait() == 0
    service.start()
    for job, printed in ((runs, b"begun\ndone\n"), (waits, b"late\n")):
        ended = service.admin.wait(job)
        assert (ended["status"], ended["attempt"]) == ("completed", 1)
        assert service.admin.log(job) == printed


def test_second_signal_stops_at_once_and_the_container_continues(
    new_service: NewService, engine: docker.APIClient
) -> None:
    service = new_service({}, drain=None)
    job = started(service)
    # As a terminal sends it.
    service.signal(signal.SIGINT, whole_group=True)
    wait_until(lambda: draining(service), 10, "it drains")
    service.stop()
    assert [container["State"] for container in service.containers(engine, job)] == ["running"]
    service.start()
    release(service, engine, job)
    ended = service.admin.wait(job)
    assert (ended["status"], ended["attempt"]) == ("completed", 1)
    assert service.admin.log(job) == b"begun\ndone\n"


def test_without_running_jobs_it_stops_at_once(new_service: NewService) -> None:
    service = new_service({}, drain=None)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
