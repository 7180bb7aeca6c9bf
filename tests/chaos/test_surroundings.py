"""What a machine does to a service: its disk fills up, its clock jumps, its jobs fall silent."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.conftest import NewService
from tests.support.clocks import Clock
from tests.support.service import Service
from tests.support.waiting import wait_until

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a filesystem of 48 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(directory)], capture_output=True, text=True
    )
    if mounted.returncode != 0 and "CI" not in os.environ:
        pytest.skip(f"a small disk can't be mounted: {mounted.stderr.strip()}")
    assert mounted.returncode == 0, mounted.stderr
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path, *, free_bytes: int = 0) -> Path:
    """Leave no more room on a disk than ``free_bytes``; returns the file that takes the rest."""
    ballast = directory / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(MIB)):
            pass
    os.truncate(ballast, ballast.stat().st_size - free_bytes)
    return ballast


def test_a_full_disk_loses_nothing(
    small_disk: Path, new_service: NewService, engine: docker.APIClient
) -> None:
    service = new_service(data_dir=small_disk / "data", min_free_disk="4m", concurrency=1)
    api = service.admin
    # A file starts it, so that it prints while there is no room.
    runs = api.submit(
        "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; i=0; "
        "while [ $i -lt 40000 ]; do echo line $i; i=$((i + 1)); done; exit 3"
    )
    wait_until(lambda: api.log(runs) == b"begun\n", 30, "the command runs")
    waits = api.submit("echo late")
    ballast = fill(small_disk)
    [container] = service.containers(engine, runs)
    engine.exec_start(engine.exec_create(container["Id"], ["touch", "/tmp/go"])["Id"])  # noqa: S108

    wait_until(lambda: "the rest of its log is written" in service.log_text(), 30, "the log finds no room")
    assert api.request("GET", "health").status_code == 200
    assert api.job(runs)["status"] == "running"
    refused = api.post_job()
    assert refused.status_code == 503, refused.text
    assert "full" in refused.json()["message"]
    ready = api.request("GET", "ready").json()["checks"]
    assert "the disk is low" in ready["object_store"]

    ballast.unlink()
    ended = api.wait(runs, deadline_s=60)
    assert (ended["status"], ended["error"], ended["attempt"]) == ("failed", "exit code 3", 1)
    printed = api.log(runs).decode().splitlines()
    assert printed == ["begun", *(f"line {number}" for number in range(40000)), "[reactorcide] exit code 3"]
    assert api.wait(waits)["status"] == "completed"
    assert api.run()["status"] == "completed"
    assert api.get("jobs")["total"] == 3
    assert " 500 " not in service.log_text()


def test_artifacts_wait_for_free_space_on_a_full_disk(
    small_disk: Path, new_service: NewService, engine: docker.APIClient
) -> None:
    # More than the files leave free: that rule is for jobs that are to be started.
    service = new_service(data_dir=small_disk / "data", min_free_disk="40m")
    api = service.admin
    job = api.submit(
        "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; cd /job/artifacts; echo a >a; "
        "head -c 10000000 /dev/zero >big; echo z >z"
    )
    wait_until(lambda: api.log(job) == b"begun\n", 30, "the command runs")
    ballast = fill(small_disk, free_bytes=5 * MIB)
    [container] = service.containers(engine, job)
    engine.exec_start(engine.exec_create(container["Id"], ["touch", "/tmp/go"])["Id"])  # noqa: S108

    wait_until(lambda: "trying again to store the artifacts" in service.log_text(), 30, "there is no room")
    assert api.job(job)["status"] == "running"
    assert api.artifact_paths(job) == []

    ballast.unlink()
    ended = api.wait(job, deadline_s=60)
    assert (ended["status"], ended["error"], ended["attempt"]) == ("completed", None, 1)
    assert {item["path"]: item["size"] for item in api.artifacts(job)} == {"a": 2, "big": 10000000, "z": 2}


def test_below_the_watermark_jobs_wait_with_a_reason(small_disk: Path, new_service: NewService) -> None:
    service = new_service(data_dir=small_disk / "data", min_free_disk="1g")
    api = service.admin
    job = api.submit()
    why = f"jobs/{job['job_id']}/why"
    wait_until(lambda: "the disk is low" in api.get(why)["reason"], 20, "the job says why it waits")
    assert api.job(job)["status"] == "queued"


def test_without_space_for_logs_jobs_wait_with_a_reason(new_service: NewService) -> None:
    service = new_service()
    api = service.admin
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for pid in service.pids():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (64 << 20, limits[1]))
    problem = "this process may write no file of more than 64 MiB (ulimit -f), and no job is started below"
    job = api.submit()
    why = f"jobs/{job['job_id']}/why"
    wait_until(lambda: problem in api.get(why)["reason"], 20, "the job says why it waits")
    wait_until(lambda: problem in api.request("GET", "ready").text, 20, "the service is not ready")
    for pid in service.pids():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    assert api.wait(job)["status"] == "completed"


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """The clock of a service."""
    return Clock(tmp_path / "clock")


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_clock_jump_neither_ends_a_job_nor_runs_it_twice(
    new_service: NewService, clock: Clock, jump_s: int
) -> None:
    service = new_service(clock.environment, lease=2, concurrency=1)
    api = service.admin
    runs = api.submit("echo begun; sleep 4; echo done", timeout_seconds=60)
    wait_until(lambda: api.log(runs) == b"begun\n", 30, "the command runs")
    waits = api.submit("echo late")
    clock.be_wrong_by(jump_s)
    after = api.submit("echo after")
    assert (after["created_at"] > waits["created_at"]) == (jump_s > 0)
    for job, printed in ((runs, b"begun\ndone\n"), (waits, b"late\n"), (after, b"after\n")):
        ended = api.wait(job)
        assert (ended["status"], ended["error"], ended["attempt"]) == ("completed", None, 1)
        assert api.log(job) == printed


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_clock_jump_between_two_starts_does_not_hang_a_job(
    new_service: NewService, clock: Clock, jump_s: int
) -> None:
    service = new_service(clock.environment, lease=2)
    api = service.admin
    job = api.submit("echo begun; sleep 4; echo done", timeout_seconds=7200)
    wait_until(lambda: api.log(job) == b"begun\n", 30, "the command runs")
    service.kill()
    clock.be_wrong_by(jump_s)
    service.start()
    ended = api.wait(job)
    assert (ended["status"], ended["error"], ended["attempt"]) == ("completed", None, 1)
    assert api.log(job) == b"begun\ndone\n"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_container_silent_for_90_s_is_still_followed(new_service: NewService) -> None:
    service: Service = new_service(lease=2)
    job = service.admin.submit("echo begun; sleep 90; echo done; exit 3")
    ended = service.admin.wait(job, deadline_s=150)
    assert (ended["status"], ended["error"], ended["attempt"]) == ("failed", "exit code 3", 1)
    assert service.admin.log(job) == b"begun\ndone\n[reactorcide] exit code 3\n"
