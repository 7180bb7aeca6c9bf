"""Services in states that several tests need."""

from collections.abc import Iterator

import docker
import pytest

from tests.conftest import ended_cleanly
from tests.support.client import Client
from tests.support.image import Images
from tests.support.service import Service


@pytest.fixture(scope="session")
def idle_service(
    tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    """A service that accepts jobs and runs none."""
    idle = Service(tmp_path_factory.mktemp("idle"), images.default, concurrency=0, log_format="json")
    yield from ended_cleanly(idle.start(), engine)


@pytest.fixture
def idle(idle_service: Service) -> Client:
    """The service that runs no jobs, as its admin sees it."""
    return idle_service.admin
