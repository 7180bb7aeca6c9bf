"""Jobs that are cancelled, deleted or run again."""

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import docker
import pytest

from tests.conftest import NewService
from tests.sources.support import running
from tests.support.client import Client, Job
from tests.support.registry import Registry
from tests.support.service import Service
from tests.support.waiting import wait_until


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of this host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def printing(api: Client, command: str, printed: bytes) -> Job:
    """Return a job that runs and has printed ``printed`` so far."""
    job = api.wait(api.submit(command), "running")
    wait_until(lambda: api.log(job) == printed, 20, f"it has printed {printed!r}")
    return job


def has_been_let_go(api: Client, job: Job) -> bool:
    """Tell whether no worker is busy with the job any more."""
    return not any(job["job_id"] in worker["running_jobs"] for worker in api.get("workers")["workers"])


def test_cancelled_waiting_job_never_runs(new_service: NewService) -> None:
    api = new_service().admin
    blocker = api.wait(api.submit("sleep 60"), "running")
    waiting, next_one = api.submit("echo ran"), api.submit("echo ran")
    cancelled = api.cancel(waiting)
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", "cancelled")
    assert cancelled["completed_at"]
    api.cancel(blocker)
    assert api.wait(next_one)["status"] == "completed"
    assert api.job(waiting) == cancelled
    assert (cancelled["started_at"], api.log(waiting)) == (None, b"")


def test_second_cancel_gives_the_same_answer(idle: Client) -> None:
    job = idle.submit()
    first = idle.cancel(job)
    assert idle.cancel(job) == first
    assert idle.request("POST", f"jobs/{job['job_id']}/cancel").json() == first


@pytest.mark.parametrize("command", ["true", "false"])
def test_ended_job_cannot_be_cancelled(api: Client, command: str) -> None:
    job = api.run(command)
    response = api.request("PUT", f"jobs/{job['job_id']}/cancel")
    assert (response.status_code, response.json()["error"]) == (409, "conflict")
    assert job["status"] in response.json()["message"]
    assert api.job(job) == job


def test_cancelled_command_can_clean_up(service: Service, engine: docker.APIClient) -> None:
    api = service.admin
    child = 'sh -c "trap \\"echo cleaned; exit\\" TERM; echo ready; while :; do sleep 0.1; done"'
    job = printing(api, f"{child}; echo never", b"ready\n")
    assert api.cancel(job)["status"] == "cancelled"
    wait_until(lambda: not service.containers(engine, job), 10, "its container is gone")
    assert b"cleaned\n" in api.log(job)
    assert b"never" not in api.log(job)
    assert api.job(job)["status"] == "cancelled"


def test_command_that_ignores_sigterm_is_killed(service: Service, engine: docker.APIClient) -> None:
    job = printing(service.admin, "trap '' TERM; echo ready; while :; do sleep 0.1; done", b"ready\n")
    start_s = time.monotonic()
    service.admin.cancel(job)
    wait_until(lambda: not service.containers(engine, job), 10, "its container is gone")
    assert time.monotonic() - start_s >= 1


def test_log_of_a_cancelled_job_is_retained(service: Service, engine: docker.APIClient) -> None:
    api = service.admin
    job = printing(
        api, "echo ready; sleep 0.2; echo x >/job/artifacts/x; echo left; sleep 60", b"ready\nleft\n"
    )
    api.cancel(job)
    wait_until(lambda: not service.containers(engine, job), 10, "its container is gone")
    assert api.log(job).startswith(b"ready\nleft\n")


def test_cancel_interrupts_a_hanging_clone(api: Client, silent_port: int) -> None:
    url = f"http://127.0.0.1:{silent_port}/project.git"
    job = api.submit(source_type="git", git_url=url)
    wait_until(lambda: bool(running(url)), 20, "git has begun")
    assert api.cancel(job)["status"] == "cancelled"
    wait_until(lambda: not running(url), 5, "git has ended")
    wait_until(lambda: has_been_let_go(api, job), 5, "the worker has let go of it")


def test_cancel_interrupts_a_hanging_pull(api: Client, new_registry: Callable[..., Registry]) -> None:
    registry = new_registry(stalls=True)
    job = api.submit(runner_image=registry.image)
    assert registry.layer_requested.wait(20)
    wait_until(lambda: b"Pulling fs layer" in api.log(job), 20, "the engine waits for the layer")
    assert api.cancel(job)["status"] == "cancelled"
    wait_until(lambda: has_been_let_go(api, job), 5, "the worker has let go of it")


def assert_nothing_remains(service: Service, engine: docker.APIClient, job: Job) -> None:
    """Wait until the job has no container, file or row any more."""
    wait_until(lambda: not service.containers(engine, job), 10, "its container is gone")
    wait_until(lambda: not service.object_path(f"jobs/{job['job_id']}").exists(), 10, "its files are gone")

    def rows() -> int:
        database = f"file:{service.data_dir / 'reactorcide.db'}?mode=ro"
        with closing(sqlite3.connect(database, uri=True)) as connection:
            queries = (f"SELECT * FROM {table} WHERE job_id = ?" for table in ("job", "attempt", "job_event"))  # noqa: S608  # names of our own
            return sum(len(connection.execute(query, (job["job_id"],)).fetchall()) for query in queries)

    wait_until(lambda: rows() == 0, 10, "its rows are gone")


@pytest.mark.parametrize("command", ["echo x >/job/artifacts/x", "sleep 60"])
def test_deleted_job_is_removed_with_its_log_and_artifacts(
    service: Service, engine: docker.APIClient, command: str
) -> None:
    api = service.admin
    job = api.submit(command)
    job = api.wait(job, "running") if "sleep" in command else api.wait(job)
    path = f"jobs/{job['job_id']}"
    total = api.get("jobs")["total"]
    assert api.request("DELETE", path).status_code == 204
    for address in (path, f"{path}/logs", f"{path}/artifacts"):
        assert api.request("GET", address).status_code == 404
    assert api.request("DELETE", path).status_code == 404
    assert api.get("jobs")["total"] == total - 1
    assert_nothing_remains(service, engine, job)


def test_deleted_waiting_job_never_runs(idle_service: Service, engine: docker.APIClient) -> None:
    job = idle_service.admin.submit()
    assert idle_service.admin.request("DELETE", f"jobs/{job['job_id']}").status_code == 204
    assert_nothing_remains(idle_service, engine, job)


def test_job_can_be_rerun(api: Client) -> None:
    job = api.run("echo $WORD; exit 3", job_env_vars={"WORD": "again"}, priority=5, description="twice")
    response = api.request("POST", f"jobs/{job['job_id']}/rerun")
    assert response.status_code == 201
    again = api.wait(response.json())
    assert response.headers["Location"] == f"/api/v1/jobs/{again['job_id']}"
    assert again["rerun_of"] == job["job_id"] != again["job_id"]
    own = {name for name in job if name.endswith(("_at", "_key"))}
    own |= {"job_id", "rerun_of", "corndogs_task_id"}
    assert {name: again[name] for name in job.keys() - own} == {name: job[name] for name in job.keys() - own}
    assert api.log(again) == api.log(job)
    assert api.job(job) == job
