"""How a job can fail, and the sentence it says."""

import shutil
import socket
import time
from collections.abc import Callable, Iterator

import docker
import pytest

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.image import Images
from tests.support.registry import Registry
from tests.support.service import Service
from tests.support.waiting import wait_until


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this host that nobody listens on, and that nobody else takes meanwhile."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@pytest.mark.parametrize("exit_code", [1, 3, 126, 143, 255])
def test_exit_code_is_that_of_the_command(api: Client, exit_code: int) -> None:
    job = api.run(f"exit {exit_code}")
    assert (job["status"], job["exit_code"], job["error"]) == ("failed", exit_code, f"exit code {exit_code}")
    assert api.log(job) == f"[reactorcide] exit code {exit_code}\n".encode()


def test_command_not_found_is_reported(api: Client) -> None:
    job = api.run("no-such-command")
    assert (job["status"], job["exit_code"]) == ("failed", 127)
    assert job["error"].startswith("exit code 127 (a command was not found")
    assert b"no-such-command" in api.log(job)


def test_image_without_a_shell_is_reported(api: Client, images: Images) -> None:
    job = api.run("true", runner_image=images.no_shell)
    assert (job["status"], job["attempt"], job["exit_code"]) == ("failed", 1, None)
    assert job["error"].startswith("the image has no /bin/sh that can be run, but said: ")


def test_job_that_times_out_ends_on_time(service: Service, engine: docker.APIClient) -> None:
    job = service.admin.wait(service.admin.submit("echo begun; sleep 60", timeout_seconds=2), "running")
    wait_until(lambda: service.admin.log(job) == b"begun\n", 20, "the command has begun")
    start_s = time.monotonic()
    job = service.admin.wait(job)
    assert time.monotonic() - start_s < 5
    assert (job["status"], job["error"]) == ("failed", "timed out after 2 s")
    assert service.admin.log(job).endswith(b"\n[reactorcide] timed out after 2 s\n")
    wait_until(lambda: not service.containers(engine, job), 10, "its container is gone")


def test_timed_out_command_that_ignores_sigterm_is_killed(api: Client) -> None:
    start_s = time.monotonic()
    job = api.run("trap '' TERM; while :; do sleep 1; done", timeout_seconds=1)
    assert job["error"] == "timed out after 1 s"
    assert time.monotonic() - start_s < 10


def test_out_of_memory_is_reported(api: Client) -> None:
    # The engine may miss the kernel's report of a container that ends at once, but not each time.
    jobs = [api.run("tail /dev/zero", memory_limit="16m") for _ in range(3)]
    assert {(job["status"], job["exit_code"]) for job in jobs} == {("failed", 137)}
    assert "killed: out of memory (limit 16 MiB)" in [job["error"] for job in jobs]


def test_container_removed_by_others_is_reported(service: Service, engine: docker.APIClient) -> None:
    job = service.admin.wait(service.admin.submit("echo begun; sleep 60"), "running")
    wait_until(lambda: service.admin.log(job) == b"begun\n", 20, "the command has begun")
    engine.remove_container(service.containers(engine, job)[0]["Id"], v=True, force=True)
    job = service.admin.wait(job)
    assert (job["status"], job["error"]) == ("failed", "the container was removed while the job ran")


def test_missing_image_in_the_registry_is_reported(
    api: Client, new_registry: Callable[..., Registry]
) -> None:
    image = f"{new_registry().address}/other:latest"
    job = api.run(runner_image=image)
    assert job["status"] == "failed"
    assert job["error"].startswith(f"image not found: {image}")


def test_unreachable_host_is_retried_then_fails(api: Client, closed_port: int) -> None:
    image = f"127.0.0.1:{closed_port}/tiny:latest"
    jobs = [
        api.submit(runner_image=image),
        api.submit(source_type="git", git_url=f"http://127.0.0.1:{closed_port}/project.git"),
    ]
    unpulled, uncloned = [api.wait(job, deadline_s=40) for job in jobs]
    assert (unpulled["status"], unpulled["attempt"]) == ("failed", 3)
    assert unpulled["error"].startswith(f"image {image} is not here and could not be pulled: ")
    assert uncloned["status"] == "failed"
    assert f"127.0.0.1:{closed_port}" in uncloned["error"] or "connect" in uncloned["error"].lower()
    for attempt in (1, 2, 3):
        assert b"could not be pulled" in api.log(unpulled, attempt=attempt)


def test_source_removed_before_the_start_is_reported(new_service: NewService) -> None:
    service = new_service()
    source = service.source_root / "short-lived"
    source.mkdir()
    blocker = service.admin.wait(service.admin.submit("sleep 60"), "running")
    job = service.admin.submit(source_path=source.name)
    shutil.rmtree(source)
    service.admin.cancel(blocker)
    job = service.admin.wait(job)
    assert job["status"] == "failed"
    assert job["error"].startswith("the source cannot be used any more: source_path")
    assert job["error"].encode() in service.admin.log(job)


def test_kill_within_the_memory_limit_names_possible_causes(service: Service) -> None:
    job = service.admin.run("kill -9 $$", memory_limit="64m")
    reason = "exit code 137 (killed by SIGKILL; perhaps for its memory limit of 64 MiB)"
    assert (job["status"], job["error"]) == ("failed", reason)
    assert service.admin.run("kill -9 $$", memory_limit=None)["error"] == "exit code 137"
