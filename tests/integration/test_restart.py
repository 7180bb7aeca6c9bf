"""A service that is stopped or killed while its jobs run continues with them at its next start."""

import time
from collections.abc import Callable
from datetime import datetime

import docker
import pytest

from tests.conftest import NewService
from tests.support.client import Job
from tests.support.service import Service
from tests.support.waiting import wait_until

ENDS: dict[str, Callable[[Service], None]] = {"stopped": Service.stop, "killed": Service.kill}
COUNTED = b"".join(b"%d\n" % i for i in range(1, 31))


@pytest.fixture(params=list(ENDS))
def end(request: pytest.FixtureRequest) -> Callable[[Service], None]:
    """A way for the service to end."""
    return ENDS[request.param]


def printing(service: Service, command: str, **fields: object) -> Job:
    """Return a job that has printed something."""
    job = service.admin.wait(service.admin.submit(command, **fields), "running")
    wait_until(lambda: bool(service.admin.log(job)), 20, "it prints")
    return job


def state(engine: docker.APIClient, service: Service, job: Job) -> str:
    """Return the state of the job's container."""
    (container,) = service.containers(engine, job)
    return str(container["State"])


def test_running_job_continues(
    new_service: NewService, engine: docker.APIClient, end: Callable[[Service], None]
) -> None:
    service = new_service()
    api = service.admin
    job = printing(
        service,
        "for i in $(seq 30); do echo $i; sleep 0.1; done;"
        " printf no-newline; echo x >/job/artifacts/x; exit 3",
    )
    end(service)
    assert state(engine, service, job) == "running"
    service.start()
    assert api.job(job)["status"] == "running"
    with api.follow(job) as lines:
        assert list(lines)[:30] == COUNTED.splitlines()
    job = api.wait(job)
    assert (job["status"], job["exit_code"], job["attempt"]) == ("failed", 3, 1)
    assert api.log(job) == COUNTED + b"no-newline\n[reactorcide] exit code 3\n"
    assert api.artifact_paths(job) == ["x"]
    service.until_sealed()
    assert service.object_path(job["logs_object_key"]).read_bytes() == api.log(job)


def test_job_that_ended_while_the_service_was_down_is_completed(
    new_service: NewService, engine: docker.APIClient, end: Callable[[Service], None]
) -> None:
    service = new_service()
    api = service.admin
    job = printing(service, "echo begun; sleep 2; echo done; echo x >/job/artifacts/x")
    end(service)
    wait_until(lambda: state(engine, service, job) == "exited", 20, "its container has ended")
    service.start()
    job = api.wait(job)
    assert (job["status"], job["exit_code"], job["error"], job["attempt"]) == ("completed", 0, None, 1)
    assert api.log(job) == b"begun\ndone\n"
    assert api.artifact_paths(job) == ["x"]


def test_waiting_jobs_run_after_a_restart(new_service: NewService, end: Callable[[Service], None]) -> None:
    service = new_service()
    api = service.admin
    blocker = printing(service, "echo begun; sleep 60")
    waiting = [api.submit(f"echo {i}") for i in range(3)]
    end(service)
    service.start()
    assert [api.job(job)["status"] for job in waiting] == ["queued"] * 3
    api.cancel(blocker)
    for i, job in enumerate(waiting):
        assert (api.wait(job)["status"], api.log(job)) == ("completed", b"%d\n" % i)


def test_the_time_limit_counts_from_the_first_start(
    new_service: NewService, end: Callable[[Service], None]
) -> None:
    service = new_service()
    job = printing(service, "echo begun; sleep 60", timeout_seconds=4)
    end(service)
    service.start()
    job = service.admin.wait(job)
    assert (job["status"], job["error"]) == ("failed", "timed out after 4 s")
    lasted = datetime.fromisoformat(job["completed_at"]) - datetime.fromisoformat(job["started_at"])
    assert 3.9 < lasted.total_seconds() < 12


def test_an_adopted_job_can_be_cancelled(
    new_service: NewService, engine: docker.APIClient, end: Callable[[Service], None]
) -> None:
    service = new_service()
    job = printing(service, "echo begun; sleep 60")
    end(service)
    service.start()
    # It is the same worker as before, whose attempts are its own.
    [worker] = service.admin.get("workers")["workers"]
    assert service.admin.job(job)["worker_id"] == worker["worker_id"]
    assert service.admin.cancel(job)["status"] == "cancelled"
    wait_until(lambda: not service.containers(engine, job), 10, "its container is gone")


def test_container_removed_while_the_service_was_down_fails_the_job(
    new_service: NewService, engine: docker.APIClient, end: Callable[[Service], None]
) -> None:
    service = new_service()
    job = printing(service, "echo begun; sleep 60")
    end(service)
    engine.remove_container(service.containers(engine, job)[0]["Id"], v=True, force=True)
    service.start()
    job = service.admin.wait(job)
    assert job["status"] == "failed"
    assert job["error"] == f"worker {job['worker_id']} was lost while it ran, and its container is gone"
    assert service.admin.log(job).startswith(b"begun\n")


def test_several_jobs_are_adopted_at_once(new_service: NewService, end: Callable[[Service], None]) -> None:
    service = new_service(concurrency=4)
    jobs = [service.admin.submit("for i in $(seq 30); do echo $i; sleep 0.1; done") for _ in range(4)]
    for job in jobs:
        wait_until(lambda: bool(service.admin.log(job)), 20, "it prints")  # noqa: B023  # called at once
    end(service)
    began = time.monotonic()
    service.start()
    for job in jobs:
        assert service.admin.wait(job)["status"] == "completed"
        assert service.admin.log(job) == COUNTED
    assert time.monotonic() - began < 20


def test_replaced_bytes_in_the_engines_copy_do_not_shift_the_log(
    new_service: NewService, end: Callable[[Service], None]
) -> None:
    service = new_service()
    # The engine's copy has three bytes for the one that is no text, and each half of a character for one.
    job = printing(
        service,
        "printf 'no \\377\\376 text\\n%016383dé\\n' 7;"
        " for i in $(seq 30); do echo $i; echo $i ü >&2; sleep 0.1; done; printf '\\303\\n'; exit 3",
    )
    wait_until(lambda: service.admin.log(job).count(b"\n") > 10, 20, "it counts")
    end(service)
    service.start()
    job = service.admin.wait(job)
    log = service.admin.log(job, stream="stdout")
    odd = b"no \xff\xfe text\n" + b"%016383d" % 7 + "é\n".encode()
    assert log == odd + COUNTED + "\ufffd\n".encode()
    assert service.admin.log(job, stream="stderr") == b"".join(
        b"%d %s\n" % (i, "ü".encode()) for i in range(1, 31)
    )
