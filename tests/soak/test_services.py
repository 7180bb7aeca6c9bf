"""A service that is gone for good, or hangs for long: the other ends its jobs, and repeats those it may."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import docker
import docker.errors
import pytest

from tests.several.conftest import House, running_corndogs
from tests.several.test_moves import own_worker
from tests.several.test_two_services import UNTIL_RELEASED
from tests.support.image import Images
from tests.support.s3 import S3Server
from tests.support.service import Service
from tests.support.waiting import wait_until

PATIENCE_S = 90
"""The margin alone is half a minute."""


@pytest.fixture
def pair(
    tmp_path: Path, images: Images, s3: S3Server, engine: docker.APIClient
) -> Iterator[tuple[Service, Service]]:
    """Two services, the second without a job of its own yet."""
    with running_corndogs(tmp_path / "corndogs") as corndogs:
        house = House(tmp_path, images.default, s3, corndogs)
        with ExitStack() as running:
            pair = []
            for concurrency in (2, 0):
                service = house.service(lost_after=3, lease=3, concurrency=concurrency)
                running.callback(service.kill)
                pair.append(service.start())
            yield pair[0], pair[1]
            for service in pair:
                for container in service.containers(engine):
                    # Its removal may have begun.
                    with suppress(docker.errors.APIError):
                        engine.remove_container(container["Id"], v=True, force=True)


@pytest.mark.parametrize("hangs", [False, True])
def test_jobs_of_a_service_that_is_gone_are_ended_or_repeated(
    pair: tuple[Service, Service], engine: docker.APIClient, hangs: bool
) -> None:
    first, second = pair
    final, repeated = (first.admin.submit(UNTIL_RELEASED, retries=retries) for retries in (0, 1))
    for job in (final, repeated):
        wait_until(lambda job=job: second.admin.log(job) == b"begun\n", 30, "it runs")  # type: ignore[misc]  # bound early
    pids = first.pids()
    if hangs:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    else:
        first.kill()
    reason = f"worker {own_worker(first)} was not heard of for more than 3 s (--lost-after)"
    ended = second.admin.wait(final, deadline_s=PATIENCE_S)
    assert (ended["status"], ended["error"]) == ("failed", reason)
    wait_until(lambda: second.admin.job(repeated)["attempt"] == 2, PATIENCE_S, "the other is repeated")
    assert second.admin.log(final) == b"begun\n"
    workers = [item["worker_id"] for item in second.admin.get("workers")["workers"]]
    assert workers == [own_worker(second)]
    # It comes back, and finds that nothing of this is its own any more.
    if hangs:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    else:
        first.start()
    wait_until(lambda: second.admin.log(repeated) == b"begun\n", 60, "it runs again")
    wait_until(lambda: len(first.containers(engine)) == 1, 60, "the containers before are gone")
    [container] = first.containers(engine, repeated)
    engine.exec_start(engine.exec_create(container["Id"], ["touch", "/tmp/go"])["Id"])  # noqa: S108  # in the container
    done = second.admin.wait(repeated)
    assert (done["status"], done["attempt"], done["worker_id"]) == ("completed", 2, own_worker(first))
    assert second.admin.log(repeated) == b"begun\ndone\n"
    assert second.admin.job(final)["error"] == reason
