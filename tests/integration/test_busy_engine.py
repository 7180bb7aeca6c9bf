"""A Docker Engine that takes very long to remove the container of a job, or to list its volumes."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.conftest import NewService
from tests.support.engine_proxy import EngineProxy, Hold
from tests.support.waiting import wait_until


@pytest.fixture
def hold() -> Iterator[Hold]:
    """The engine's removals, and its list of volumes."""
    hold = Hold(rb"DELETE |GET \S*/volumes")
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
        assert service.anonymous().request("GET", "ready").status_code == 200
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
