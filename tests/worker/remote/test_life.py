"""The life of a worker: systemd, draining, a wrong clock, warm containers, and versions one apart."""

import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from tests.conftest import NewService
from tests.deploy.test_release_upgrade import launcher_of
from tests.support.clocks import Clock
from tests.support.ports import free_port
from tests.support.remote import RemoteWorker
from tests.support.service import Service
from tests.support.waiting import is_readable, wait_until
from tests.worker.remote.conftest import working
from tests.worker.remote.test_outages import PRINTED
from tests.worker.remote.test_remote import begun, release

EARLIER = "d75f241"
"""A version one before this one, from the history of the repository."""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(str(tmp_path / "notify"))
        yield listener


def told(manager: socket.socket) -> bytes:
    """Return the next state that the service manager is told."""
    assert is_readable(manager, 20)
    return manager.recv(1000)


def worker_of(hub: Service, tmp_path: Path, queue: str, **options: object) -> RemoteWorker:
    """Return a worker that is not started yet."""
    return RemoteWorker(hub, tmp_path / "worker", f"{queue}-{uuid.uuid4().hex[:8]}", queue, **options)


def test_systemd_hears_of_start_and_stop_and_the_job_goes_on_meanwhile(
    hub: Service, tmp_path: Path, manager: socket.socket, engine: docker.APIClient
) -> None:
    worker = worker_of(hub, tmp_path, "notify")
    worker.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    with working(worker.start(), engine) as ended:
        assert told(manager) == b"READY=1"
        job = begun(hub.admin, queue_name="notify")
        ended.stop()
        assert told(manager) == b"STOPPING=1"
        assert [item["State"] for item in ended.containers(engine)] == ["running"]
        ended.start()
        assert told(manager) == b"READY=1"
        release(engine, ended)
        over = hub.admin.wait(job)
        assert (over["status"], over["attempt"], hub.admin.log(job)) == ("completed", 1, PRINTED)


def test_a_draining_worker_ends_after_its_job_and_takes_no_other(
    hub: Service, tmp_path: Path, manager: socket.socket, engine: docker.APIClient
) -> None:
    worker = worker_of(hub, tmp_path, "drain", drain=None)
    worker.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    with working(worker.start(), engine) as ended:
        assert told(manager) == b"READY=1"
        job = begun(hub.admin, queue_name="drain")
        ended.signal(signal.SIGTERM)
        assert told(manager) == b"STOPPING=1"
        waits = hub.admin.submit(queue_name="drain")
        release(engine, ended)
        assert ended.wait() == 0
        over = hub.admin.job(job)
        assert (over["status"], over["attempt"], hub.admin.log(job)) == ("completed", 1, PRINTED)
        assert hub.admin.job(waits)["status"] == "queued"
        hub.admin.cancel(waits)


@pytest.mark.parametrize("hours", [-30, 30])
def test_the_clock_of_a_worker_may_be_wrong(
    hub: Service, tmp_path: Path, engine: docker.APIClient, hours: int
) -> None:
    clock = Clock(tmp_path / "clock")
    clock.be_wrong_by(3600 * hours)
    worker = worker_of(hub, tmp_path, "clock")
    worker.environment |= clock.environment
    with working(worker.start(), engine) as wrong:
        job = begun(hub.admin, queue_name="clock", timeout_seconds=600)
        # Adopted, it still has the rest of its time.
        wrong.kill()
        wrong.start()
        release(engine, wrong)
        over = hub.admin.wait(job)
        assert (over["status"], over["attempt"], hub.admin.log(job)) == ("completed", 1, PRINTED)
        began = time.time()
        late = hub.admin.run("sleep 60", queue_name="clock", timeout_seconds=1)
        assert late["error"] == "timed out after 1 s"
        # All times are the service's.
        for ended in (over, late):
            times = [ended[name] for name in ("created_at", "started_at", "completed_at")]
            assert times == sorted(times), times
        today = time.strftime("%Y-%m-%dT", time.gmtime(began)), time.strftime("%Y-%m-%dT", time.gmtime())
        assert late["started_at"].startswith(today), late


def test_a_job_gets_a_warm_container(hub: Service, tmp_path: Path, engine: docker.APIClient) -> None:
    worker = worker_of(hub, tmp_path, "warm", warm=1)
    try:
        worker.start()

        def warm() -> list[str]:
            return [
                item["Id"]
                for item in worker.containers(engine)
                if item["State"] == "running" and item["Names"][0].startswith("/reactorcide-warm-")
            ]

        assert hub.admin.run(queue_name="warm")["status"] == "completed"
        wait_until(lambda: bool(warm()), 30, "a container waits for the next job")
        [container_id] = warm()
        job = hub.admin.run("hostname", queue_name="warm")
        assert job["status"] == "completed", job
        assert container_id.startswith(hub.admin.log(job).decode().strip())
        worker.stop()
        wait_until(lambda: not worker.containers(engine), 20, "its containers are gone")
    finally:
        worker.kill()
        for item in worker.containers(engine):
            engine.remove_container(item["Id"], v=True, force=True)


def test_a_worker_of_the_version_before_runs_jobs(
    hub: Service, tmp_path: Path, engine: docker.APIClient
) -> None:
    worker = worker_of(hub, tmp_path, "earlier", source_root=hub.source_root)
    worker.program = (sys.executable, str(launcher_of(EARLIER, tmp_path / "earlier")))
    with working(worker.start(), engine) as earlier:
        job = begun(hub.admin, queue_name="earlier")
        # Upgraded while its job runs.
        earlier.stop()
        earlier.program = None
        earlier.start()
        release(engine, earlier)
        over = hub.admin.wait(job)
        assert (over["status"], over["attempt"], hub.admin.log(job)) == ("completed", 1, PRINTED)


def test_a_service_is_upgraded_under_its_worker(
    new_service: NewService, tmp_path: Path, engine: docker.APIClient
) -> None:
    service = new_service(concurrency=0, port=free_port())
    service.stop()
    # A database is not taken back to an earlier version, so that it begins with this one.
    (service.data_dir / "reactorcide.db").unlink()
    service.program = (sys.executable, str(launcher_of(EARLIER, tmp_path / "earlier")))
    service.start()
    with working(worker_of(service, tmp_path, "upgraded").start(), engine) as worker:
        job = begun(service.admin, queue_name="upgraded")
        service.stop()
        service.program = None
        service.start()
        release(engine, worker)
        over = service.admin.wait(job)
        assert (over["status"], over["attempt"]) == ("completed", 1)
        assert service.admin.log(job) == PRINTED
