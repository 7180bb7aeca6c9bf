"""Images that have to be fetched first, from a real registry."""

from collections.abc import Callable

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.registry import Registry
from tests.support.waiting import wait_until


def test_an_image_that_is_not_here_is_pulled_and_the_log_tells(
    api: Client, new_registry: Callable[..., Registry]
) -> None:
    image = new_registry().image
    first = api.run("echo ran", runner_image=image)
    assert first["status"] == "completed", api.log(first)
    lines = api.log(first).decode().splitlines()
    assert lines[0] == f"[reactorcide] pulling image {image}"
    assert any("Pull complete" in line for line in lines)
    assert len(lines) < 20
    assert lines[-1] == "ran"
    second = api.run("echo ran", runner_image=image)
    assert api.log(second) == b"ran\n"


def test_two_jobs_may_pull_the_same_image_at_once(api: Client, new_registry: Callable[..., Registry]) -> None:
    image = new_registry().image
    jobs = [api.submit(runner_image=image) for _ in range(2)]
    assert [api.wait(job)["status"] for job in jobs] == ["completed"] * 2


def test_a_pull_that_takes_too_long_is_given_up(
    new_service: NewService, new_registry: Callable[..., Registry]
) -> None:
    api = new_service(prepare_timeout=2).admin
    job = api.submit(runner_image=new_registry(stalls=True).image)
    wait_until(lambda: b"2 s" in api.log(job, attempt=1), 10, "its log says that it is given up")
    # Whether it is tried again or has failed: it does not hold its place.
    wait_until(lambda: api.job(job)["status"] != "running", 10, "it is given up")
    api.request("DELETE", f"jobs/{job['job_id']}")
