"""A service without a worker of its own, and workers beside it."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import docker
import docker.errors
import pytest

from tests.conftest import ended_cleanly
from tests.support.image import Images
from tests.support.remote import RemoteWorker
from tests.support.service import Service
from tests.support.waiting import wait_until


class NewWorker(Protocol):
    """Creates and starts a worker for one test."""

    def __call__(self, service: Service, *queues: str, **options: object) -> RemoteWorker: ...


@pytest.fixture(scope="package")
def hub(
    tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    """A service that runs no job itself."""
    service = Service(tmp_path_factory.mktemp("hub"), images.default, concurrency=0, cancel_grace=1)
    yield from ended_cleanly(service.start(), engine)


@pytest.fixture(scope="package")
def remote(
    hub: Service, tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient
) -> Iterator[RemoteWorker]:
    """A worker of that service for the queue ``default``; tests leave nothing running on it."""
    yield from worker_ended_cleanly(
        RemoteWorker(
            hub, tmp_path_factory.mktemp("worker"), "shared", "default", source_root=hub.source_root
        ).start(),
        engine,
    )


@pytest.fixture
def new_worker(tmp_path: Path, engine: docker.APIClient) -> Iterator[NewWorker]:
    """A factory of workers that end with the test."""
    numbers = itertools.count(1)
    ends: list[Iterator[RemoteWorker]] = []

    def make(service: Service, *queues: str, **options: object) -> RemoteWorker:
        name = f"{tmp_path.name[:40]}-{next(numbers)}".strip("_")
        worker = RemoteWorker(service, tmp_path / name, name, *queues, **options)
        ends.append(worker_ended_cleanly(worker.start(), engine))
        return next(ends[-1])

    yield make
    for end in ends:
        assert next(end, None) is None


def worker_ended_cleanly(worker: RemoteWorker, engine: docker.APIClient) -> Iterator[RemoteWorker]:
    """Yield a worker; then stop it, and see that no container of it remains."""
    yield worker
    try:
        wait_until(lambda: not worker.containers(engine), 10, "the worker's containers are gone")
        worker.stop()
    finally:
        worker.kill()
        for container in worker.containers(engine):
            with contextlib.suppress(docker.errors.APIError):
                engine.remove_container(container["Id"], v=True, force=True)


working = contextlib.contextmanager(worker_ended_cleanly)
