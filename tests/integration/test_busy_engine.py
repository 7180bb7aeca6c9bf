"""A Docker Engine that takes very long to remove a container, to list volumes, or to take a network down."""

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.engine_proxy import EngineProxy, Hold
from tests.support.waiting import wait_until


@pytest.fixture
def hold(request: pytest.FixtureRequest) -> Iterator[Hold]:
    """The engine's removals, and its list of volumes, unless a test names others."""
    hold = Hold(getattr(request, "param", rb"DELETE |GET \S*/volumes"))
    yield hold
    hold.let_go()


@pytest.fixture
def busy(tmp_path: Path, hold: Hold) -> Iterator[EngineProxy]:
    """An engine with that hold."""
    proxy = EngineProxy(tmp_path / "engine.sock", before=hold)
    proxy.on()
    yield proxy
    hold.let_go()
    proxy.off()


def test_container_removal_delays_no_job_and_the_slot_is_free_at_the_end(
    busy: EngineProxy, hold: Hold, new_service: NewService, engine: docker.APIClient
) -> None:
    service = new_service({"DOCKER_HOST": busy.url}, concurrency=1)
    api = service.admin
    try:
        wait_until(lambda: bool(hold.held), 20, "the engine is asked for volumes")
        for number in range(3):
            job = api.wait(api.submit(f"echo {number}; exit {number}"))
            assert (job["exit_code"], api.log(job).splitlines()[0]) == (number, str(number).encode())
        assert len(service.containers(engine)) == 3
        service.until_ready()
    finally:
        hold.let_go()
    wait_until(lambda: not service.containers(engine), 20, "the containers are removed")


def test_service_start_does_not_wait_for_removals(
    busy: EngineProxy, hold: Hold, new_service: NewService, engine: docker.APIClient
) -> None:
    service = new_service({"DOCKER_HOST": busy.url}, concurrency=1)
    api = service.admin
    try:
        api.run("true")
        assert len(service.containers(engine)) == 1
        service.kill()
        service.start()
        assert api.run("echo ran")["status"] == "completed"
        assert api.cancel(api.wait(api.submit("sleep 60"), "running"))["status"] == "cancelled"
        assert api.run("echo ran")["status"] == "completed"
    finally:
        hold.let_go()
    wait_until(lambda: not service.containers(engine), 40, "the containers are removed")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads the directories of volumes")
@pytest.mark.parametrize("hold", [rb"POST \S*/wait|HEAD \S*path=%2Fjob%2Fartifacts"], indirect=True)
@pytest.mark.parametrize("warm", [0, 2])
def test_success_is_known_before_the_network_is_down(
    busy: EngineProxy, hold: Hold, new_service: NewService, warm: int
) -> None:
    api = new_service({"DOCKER_HOST": busy.url}, warm=warm).admin
    for number in range(3):
        job = api.run(f"echo {number}")
        assert (job["status"], job["exit_code"], hold.held) == ("completed", 0, [])
        assert api.log(job) == f"{number}\n".encode()
    failed = api.submit("exit 3")
    wait_until(lambda: bool(hold.held), 20, "the engine is asked why a command has failed")
    assert api.job(failed)["status"] == "running"
    hold.let_go()
    assert api.wait(failed)["exit_code"] == 3


def test_command_that_closes_its_output_is_waited_for(api: Client) -> None:
    job = api.run("exec >&- 2>&-; sleep 0.6; echo kept >/job/artifacts/kept; exit 0")
    assert (job["status"], api.artifact_paths(job)) == ("completed", ["kept"])
