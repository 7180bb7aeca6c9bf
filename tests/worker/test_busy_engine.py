"""A worker on a Docker Engine that is too busy to create a container in time."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from reactorcide.domain.jobs import JobStatus
from reactorcide.runner.docker import DockerRunner
from tests.support.engine_proxy import EngineProxy, Hold
from tests.support.image import Images
from tests.support.waiting import wait_until
from tests.worker.conftest import House, open_house

CREATE = rb"POST \S*/containers/create"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house of its own name, because others use the same engine."""
    with open_house(tmp_path / "house", str(uuid.uuid4())) as busy_house:
        yield busy_house


@pytest.fixture
def busy(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    """A hold on what the house's engine, which is the real one, shall create."""
    monkeypatch.setattr("reactorcide.runner.docker.client.API_TIMEOUT_S", 3)
    # Those of another kind are not repeated at all.
    monkeypatch.setattr("reactorcide.worker.attempt.report.MAX_PREPARATION_FAILURES", 0)
    monkeypatch.setattr("reactorcide.worker.attempt.report._FIRST_RETRY_DELAY_S", 0.05)
    monkeypatch.setattr("reactorcide.worker.loop._RECOVER_EVERY_S", 0.5)
    hold = Hold(CREATE)
    proxy = EngineProxy(tmp_path / "engine.sock", before=hold)
    proxy.on()
    runner = DockerRunner({**os.environ, "DOCKER_HOST": proxy.url})
    house.runner = runner  # type: ignore[assignment]  # the other tests look into a fake one
    yield hold
    hold.let_go()
    for worker in house.workers:
        worker.stop(20)
    runner.close()
    proxy.off()


def containers(house: House, engine: docker.APIClient) -> list[object]:
    label = f"reactorcide.instance={house.context.instance_id}"
    return list(engine.containers(all=True, filters={"label": label}))


def test_preparation_is_repeated_while_the_engine_is_busy(
    house: House, busy: Hold, images: Images, engine: docker.APIClient
) -> None:
    house.worker(concurrency=1)
    job = house.submit("exit 0", runner_image=images.default)
    house.until(job, lambda job: job.attempt > 2, "the third attempt")
    first, *_ = house.context.store.attempts.of_job(job.job_id)
    assert first.error == (
        "the Docker Engine has not answered in time when asked to create a container; it may be busy"
    )
    busy.let_go()
    ended = house.until(job, lambda job: job.is_final, "the job to end")
    assert (ended.status, ended.error) == (JobStatus.COMPLETED, None)
    # The engine has by now created all that nobody waits for any more.
    wait_until(lambda: not containers(house, engine), 20, "they are removed")


def test_preparation_is_repeated_for_a_bounded_time(
    house: House, busy: Hold, images: Images, monkeypatch: pytest.MonkeyPatch, engine: docker.APIClient
) -> None:
    monkeypatch.setattr("reactorcide.worker.attempt.report.MAX_BUSY_PREPARATIONS", 2)
    house.worker(concurrency=1)
    job = house.submit("exit 0", runner_image=images.default)
    ended = house.until(job, lambda job: job.is_final, "the job to end")
    assert (ended.status, ended.attempt, len(busy.held)) == (JobStatus.FAILED, 3, 3)
    assert ended.error == (
        "the Docker Engine has not answered in time when asked to create a container; it may be busy; "
        "it was tried 3 times"
    )
    busy.let_go()
    wait_until(lambda: not containers(house, engine), 20, "what the engine has created since is removed")
