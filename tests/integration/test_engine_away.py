"""A Docker Engine that is away, comes back, or goes in the middle of a job."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from tests.conftest import NewService
from tests.support.engine_proxy import ENGINE_SOCKET, EngineProxy
from tests.support.waiting import wait_until


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[EngineProxy]:
    """An engine that can be switched on and off."""
    proxy = EngineProxy(tmp_path / "engine.sock")
    yield proxy
    proxy.off()


def test_jobs_wait_for_an_unreachable_engine_and_run_when_it_is_back(
    proxy: EngineProxy, new_service: NewService
) -> None:
    try:
        service = new_service({"DOCKER_HOST": proxy.url})
        api = service.admin
        job = api.submit("echo ran")
        ready = service.anonymous().request("GET", "ready")
        assert ready.status_code == 503
        assert ready.json()["checks"].pop("docker") != "ok"
        assert {ready.json()["checks"][name] for name in ("database", "corndogs", "object_store")} == {"ok"}
        assert api.job(job, wait=2)["status"] == "queued"
        for path in ("jobs", "queues", "workers", f"jobs/{job['job_id']}/logs", "/metrics"):
            assert api.request("GET", path).status_code == 200
        waiting = api.cancel(api.submit())
        assert waiting["status"] == "cancelled"
        proxy.on()
        job = api.wait(job)
        assert (job["status"], job["attempt"], api.log(job)) == ("completed", 1, b"ran\n")
        service.until_ready()
        assert " 500 " not in service.log_text()
    finally:
        # The service's end needs an engine to look at.
        if not proxy.path.exists():
            proxy.on()


def test_running_job_survives_a_lost_connection_to_the_engine(
    proxy: EngineProxy, new_service: NewService
) -> None:
    proxy.on()
    api = new_service({"DOCKER_HOST": proxy.url}).admin
    job = api.wait(api.submit("for i in $(seq 30); do echo $i; sleep 0.1; done; exit 4"), "running")
    wait_until(lambda: b"5\n" in api.log(job), 20, "it prints")
    proxy.off()
    assert api.job(job, wait=1)["status"] == "running"
    proxy.on()
    job = api.wait(job)
    assert (job["status"], job["exit_code"], job["attempt"]) == ("failed", 4, 1)
    expected = b"".join(b"%d\n" % i for i in range(1, 31))
    assert api.log(job) == expected + b"[reactorcide] exit code 4\n"


def test_engine_that_never_answers_blocks_no_request(tmp_path: Path, new_service: NewService) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent, ExitStack() as stack:
        silent.bind(str(path))
        silent.listen(1000)
        service = new_service({"DOCKER_HOST": f"unix://{path}"}, concurrency=0)
        for _ in range(60):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=20))
            client.sendall(b"GET /api/v1/ready HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        anonymous = service.anonymous()
        for _ in range(10):
            start_s = monotonic()
            assert anonymous.request("GET", "health").status_code == 200
            assert monotonic() - start_s < 2

        def docker_check() -> str:
            response = anonymous.request("GET", "ready")
            assert response.status_code == 503
            return str(response.json()["checks"]["docker"])

        wait_until(lambda: "has not answered for" in docker_check(), 20, "readiness tells of it")
        ready = anonymous.request("GET", "ready").json()
        assert {ready["checks"][name] for name in ("database", "corndogs", "object_store")} == {"ok"}
        assert (ready["ages_s"]["docker"], ready["ages_s"]["database"] < 5) == (None, True)
        # The service's end, and the test's, need an engine to look at.
        path.unlink()
        path.symlink_to(ENGINE_SOCKET)
