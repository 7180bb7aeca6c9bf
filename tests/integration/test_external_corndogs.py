"""A Corndogs that runs elsewhere: it may be away, and others may use its queues."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.domain.errors import CorndogsUnavailable
from tests.conftest import NewService
from tests.support.waiting import wait_until


@pytest.fixture
def start_corndogs(tmp_path: Path) -> Iterator[Callable[[int], EmbeddedCorndogs]]:
    """Starts a Corndogs with this port for CSIL; started again, it has the tasks that it had."""
    started: list[EmbeddedCorndogs] = []

    def start(port: int = 0) -> EmbeddedCorndogs:
        server = EmbeddedCorndogs(tmp_path / "tasks.db", csil_port=port)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.mark.parametrize("scheme", ["grpc", "csil"])
def test_jobs_run_through_an_external_corndogs(
    start_corndogs: Callable[..., EmbeddedCorndogs], new_service: NewService, scheme: str
) -> None:
    corndogs = start_corndogs()
    address = corndogs.csil_address if scheme == "csil" else corndogs.address
    service = new_service(corndogs_address=f"{scheme}://{address}")
    job = service.admin.run("echo ran")
    assert (job["status"], service.admin.log(job)) == ("completed", b"ran\n")
    client = GrpcCorndogs(corndogs.address)
    try:

        def state() -> str:
            task = client.get_task(job["corndogs_task_id"], "default")
            assert task is not None
            return task.current_state

        # The task is closed after the job's end is written down.
        wait_until(lambda: state() == "completed", 10, "its task is closed")
    finally:
        client.close()
    assert not (service.data_dir / "corndogs.db").exists()


def test_job_is_accepted_during_an_outage_and_runs_afterwards(
    start_corndogs: Callable[..., EmbeddedCorndogs], new_service: NewService
) -> None:
    corndogs = start_corndogs()
    service = new_service(corndogs_address=f"csil://{corndogs.csil_address}")
    api = service.admin
    assert api.run()["status"] == "completed"
    corndogs.stop()
    job, cancelled = api.submit(), api.submit()
    assert (job["status"], job["corndogs_task_id"]) == ("submit_failed", None)
    assert job["error"].startswith("not queued yet, will be retried: ")
    assert api.cancel(cancelled)["status"] == "cancelled"
    ready = service.anonymous().request("GET", "ready")
    assert (ready.status_code, ready.json()["checks"]["docker"]) == (503, "ok")
    assert "Corndogs" in ready.json()["checks"]["corndogs"]
    start_corndogs(corndogs.csil_port)
    job = api.wait(job)
    assert (job["status"], job["error"], job["attempt"]) == ("completed", None, 1)
    assert api.job(cancelled)["status"] == "cancelled"
    assert " 500 " not in service.log_text()


def test_running_job_ends_during_an_outage(
    start_corndogs: Callable[..., EmbeddedCorndogs], new_service: NewService
) -> None:
    corndogs = start_corndogs()
    api = new_service(corndogs_address=f"csil://{corndogs.csil_address}").admin
    job = api.wait(api.submit("echo begun; sleep 2; echo done"), "running")
    wait_until(lambda: api.log(job) == b"begun\n", 20, "it has begun")
    corndogs.stop()
    assert api.wait(job)["status"] == "completed"
    assert api.log(job) == b"begun\ndone\n"
    back = start_corndogs(corndogs.csil_port)
    client = GrpcCorndogs(back.address)

    def state() -> str | None:
        try:
            task = client.get_task(job["corndogs_task_id"], "default")
        except CorndogsUnavailable:
            return None
        return task.current_state if task else None

    wait_until(lambda: state() == "completed", 20, "its task is closed")
    client.close()


@pytest.mark.parametrize("timeout_s", [-1, 3600])
@pytest.mark.parametrize(
    "payload", [b"not ours", b"", b"[" * 900, b'{"job_id": "1", "job_type": "run", "instance": "other"}']
)
def test_tasks_of_other_users_are_put_back_unchanged(
    start_corndogs: Callable[..., EmbeddedCorndogs],
    new_service: NewService,
    payload: bytes,
    timeout_s: int,
) -> None:
    # Over gRPC for one timeout, and over CSIL, where an update must not erase the payload, for the other.
    corndogs = start_corndogs()
    address = corndogs.address if timeout_s == -1 else f"csil://{corndogs.csil_address}"
    client = GrpcCorndogs(corndogs.address)
    foreign = [
        client.submit_task(
            "default", payload=payload, priority=9, timeout_s=timeout_s, auto_target_state="theirs"
        )
        for _ in range(30)
    ]
    api = new_service(corndogs_address=address).admin
    for _ in range(2):
        assert api.run("true")["status"] == "completed"
    for before in foreign:
        after = client.get_task(before.uuid, "default")
        assert after is not None
        assert replace(after, update_time_ns=0) == replace(before, update_time_ns=0)
    client.close()


def test_two_services_share_one_corndogs(
    start_corndogs: Callable[..., EmbeddedCorndogs], new_service: NewService, tmp_path: Path
) -> None:
    corndogs = start_corndogs()
    services = [
        new_service(corndogs_address=corndogs.address, data_dir=tmp_path / name, concurrency=1)
        for name in ("one", "two")
    ]
    jobs = [
        (service.admin, service.admin.submit(f"echo {number}"), number)
        for service in services
        for number in range(6)
    ]
    start_s = monotonic()
    for api, job, number in jobs:
        assert api.wait(job, deadline_s=60)["status"] == "completed"
        assert api.log(job) == f"{number}\n".encode()
    # Each rest of seconds for a task of the other one would be felt six times.
    assert monotonic() - start_s < 30


def test_corndogs_with_a_failing_store_is_not_ready(
    start_corndogs: Callable[..., EmbeddedCorndogs], new_service: NewService
) -> None:
    corndogs = start_corndogs()
    service = new_service(corndogs_address=corndogs.address)

    def queue_check() -> str:
        return str(service.anonymous().request("GET", "ready").json()["checks"]["corndogs"])

    wait_until(lambda: queue_check() == "ok", 10, "it is ready")
    execute: Callable[..., object] = corndogs._storage._writer.execute_sql
    execute("ALTER TABLE task RENAME TO away_with_host_and_user")
    wait_until(lambda: queue_check() != "ok", 10, "it is not")
    job = service.admin.submit()
    for problem in (queue_check(), job["error"]):
        assert "Corndogs refused" in problem
        assert not any(word in problem for word in ("task:", "table", corndogs.address))
    execute("ALTER TABLE away_with_host_and_user RENAME TO task")
    wait_until(lambda: queue_check() == "ok", 10, "it is ready")
    assert service.admin.wait(job)["status"] == "completed"
