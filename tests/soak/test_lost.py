"""A worker that is gone for good: another one gets its job, if that may run again."""

from pathlib import Path

import docker
import pytest

from tests.conftest import NewService
from tests.support.remote import RemoteWorker
from tests.support.waiting import wait_until
from tests.worker.remote.test_remote import begun


@pytest.mark.parametrize("retries", [0, 1])
def test_job_of_a_dead_worker_runs_again_only_by_its_retries(
    new_service: NewService, tmp_path: Path, engine: docker.APIClient, retries: int
) -> None:
    service = new_service(concurrency=0)
    dead, alive = (RemoteWorker(service, tmp_path / name, name, lost_after=5) for name in ("dead", "alive"))
    try:
        dead.start()
        job = begun(service.admin, retries=retries)
        dead.kill()
        alive.start()
        wait_until(lambda: service.admin.job(job)["attempt"] > 1 or retries == 0, 90, "it runs again")
        if retries:
            wait_until(lambda: bool(alive.containers(engine)), 30, "it has another container")
            service.admin.cancel(job)
        else:
            ended = service.admin.wait(job, deadline_s=90)
            assert (ended["status"], ended["attempt"]) == ("failed", 1)
        first = service.admin.get(f"jobs/{job['job_id']}/attempts")["attempts"][0]
        assert first["error"] == f"worker {dead.worker_id} was not heard of for more than 5 s (--lost-after)"
        wait_until(lambda: not alive.containers(engine), 30, "its containers are gone")
        alive.stop()
    finally:
        for worker in (dead, alive):
            worker.kill()
            for container in worker.containers(engine):
                engine.remove_container(container["Id"], v=True, force=True)
