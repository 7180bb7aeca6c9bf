"""Several services on one database, one bucket and one queue."""

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.conftest import ended_cleanly, storage_on_servers
from tests.support.image import Images
from tests.support.s3 import S3Server
from tests.support.service import Service, clean_environment, command_line


class House:
    """What the services share, and the services, each with a data directory of its own."""

    def __init__(self, home: Path, image: str, s3: S3Server, corndogs: str) -> None:
        self.home = home
        storage = storage_on_servers(s3)
        self.environment = storage.environment
        self.options = {
            **storage.options,
            "corndogs_address": corndogs,
            "cancel_grace": 1,
            "lease": 600,
            "concurrency": 2,
        }
        self._image = image
        self._numbers = itertools.count(1)
        self.services: list[Service] = []

    def service(self, kind: type[Service] = Service, **options: object) -> Service:
        """Return another service, not started yet, with the key and the admin of the first."""
        home = self.home / f"service-{next(self._numbers)}"
        service = kind(home, self._image, self.environment, **(self.options | options))
        if self.services:
            service.join(self.services[0])
        self.services.append(service)
        return service


@contextmanager
def running_corndogs(home: Path) -> Iterator[str]:
    """Run ``reactorcide corndogs`` and yield its address."""
    home.mkdir()
    with subprocess.Popen(
        command_line("corndogs", {"port": 0, "data-dir": home / "data"}),
        env=clean_environment(home),
        cwd=home,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline().decode()
            assert line.startswith("Corndogs listens on "), line
            yield line.split()[-1]
        finally:
            process.kill()


@pytest.fixture(scope="session")
def corndogs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a queue; each installation has its own tasks there."""
    with running_corndogs(tmp_path_factory.mktemp("corndogs") / "home") as address:
        yield address


@pytest.fixture(scope="package")
def pair(
    tmp_path_factory: pytest.TempPathFactory,
    engine: docker.APIClient,
    images: Images,
    s3: S3Server,
    corndogs: str,
) -> Iterator[tuple[Service, Service]]:
    """Two services: the first one runs jobs, the second none. Tests leave nothing running."""
    house = House(tmp_path_factory.mktemp("pair"), images.default, s3, corndogs)
    options: dict[str, Any] = {"bad_tokens": 40, "allow_address": "127.0.0.1/32", "queue": "default"}
    with ExitStack() as running:
        pair = []
        for concurrency in (house.options["concurrency"], 0):
            service = house.service(**options, concurrency=concurrency)
            running.callback(service.kill)
            service.start()
            pair.append(service)
        yield pair[0], pair[1]
        for service in reversed(pair):
            for _ in ended_cleanly(service, engine):
                pass


@pytest.fixture
def house(
    tmp_path: Path, engine: docker.APIClient, images: Images, s3: S3Server, corndogs: str
) -> Iterator[House]:
    """A house whose services end with the test."""
    made = House(tmp_path, images.default, s3, corndogs)
    yield made
    for service in made.services:
        if service.is_running:
            for _ in ended_cleanly(service, engine):
                pass
